"""What tests lean on: a hub that misbehaves on demand, a clock that stands still, rows."""
