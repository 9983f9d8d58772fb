-- A hub's database from before migrations, with a token and a key: the sqlite3 dump of what create_all made.
BEGIN TRANSACTION;
CREATE TABLE accounts (
  name VARCHAR(63) NOT NULL,
  revision BIGINT NOT NULL,
  revision_mark VARCHAR(32) NOT NULL,
  created_at DATETIME NOT NULL,
  CONSTRAINT pk_accounts PRIMARY KEY (name)
);
INSERT INTO "accounts" VALUES('acme',2,'4e387c3a6e7c846a','2026-11-22 03:23:26.927520');
CREATE TABLE tokens (
  id VARCHAR(36) NOT NULL,
  account VARCHAR(63) NOT NULL,
  name VARCHAR(200) NOT NULL,
  keyed_hash VARCHAR(64) NOT NULL,
  created_at DATETIME NOT NULL,
  CONSTRAINT pk_tokens PRIMARY KEY (id),
  CONSTRAINT fk_tokens_account_accounts FOREIGN KEY(account) REFERENCES accounts (name),
  CONSTRAINT uq_tokens_keyed_hash UNIQUE (keyed_hash)
);
INSERT INTO "tokens" VALUES('52640f06-ae1f-4693-bbf7-38ff371512dc','acme','ci','d851af8f42e1e09a19e08ad4623f868e53092b5b251f8ab2bd46e507913850e7','2026-11-22 03:23:26.927520');
CREATE TABLE widget_keys (
  sequence INTEGER NOT NULL,
  id VARCHAR(36) NOT NULL,
  account VARCHAR(63) NOT NULL,
  name VARCHAR(200) NOT NULL,
  last8 VARCHAR(8) NOT NULL,
  domain_allowlist JSON NOT NULL,
  agent_id VARCHAR(200),
  disabled_at DATETIME,
  created_at DATETIME NOT NULL,
  updated_at DATETIME NOT NULL,
  last_used_at DATETIME,
  key_sha256 VARCHAR(64) NOT NULL,
  keyed_hash VARCHAR(64) NOT NULL,
  CONSTRAINT pk_widget_keys PRIMARY KEY (sequence),
  CONSTRAINT uq_widget_keys_account_last8 UNIQUE (account, last8),
  CONSTRAINT uq_widget_keys_id UNIQUE (id),
  CONSTRAINT fk_widget_keys_account_accounts FOREIGN KEY(account) REFERENCES accounts (name)
);
INSERT INTO "widget_keys" VALUES(1,'95599434-223e-418c-b492-91c2dcd90852','acme','shop','OX7aPG6b','["acme.com"]','agent-7',NULL,'2026-11-22 03:23:26.937033','2026-11-22 03:23:26.937033',NULL,'9d4688115e8b6dce529f7a20bce1fefec1aa28f24eccee54c2aceb603f69da98','92787c1497a41bbb768573b690392a8c9bf5d28981a69bcfc640e106f6840638');
CREATE INDEX ix_tokens_account ON tokens (account);
COMMIT;
