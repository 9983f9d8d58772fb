-- Plays a tape of requests, one per line: method, client key and origin, separated by tabs. Prints the results as JSON.

local browser = {
  ["sec-ch-ua-platform"] = '"Linux"',
  ["user-agent"] = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36",
  ["sec-ch-ua"] = '"Chromium";v="156", "Not)A;Brand";v="24"',
  ["sec-ch-ua-mobile"] = "?0",
  ["accept"] = "*/*",
  ["sec-fetch-site"] = "cross-site",
  ["sec-fetch-mode"] = "cors",
  ["sec-fetch-dest"] = "empty",
  ["accept-encoding"] = "gzip, deflate, br, zstd",
  ["accept-language"] = "en-US,en;q=0.9",
}

local requests = {}
local at = 0

function init(args)
  for line in io.lines(args[1]) do
    local method, key, origin = line:match("([^\t]*)\t([^\t]*)\t([^\t]*)")
    local headers = { ["origin"] = origin, ["referer"] = origin .. "/" }
    for name, value in pairs(browser) do headers[name] = value end
    if method == "OPTIONS" then
      headers["access-control-request-method"] = "GET"
      headers["access-control-request-headers"] = "data-client-key"
    else
      headers["data-client-key"] = key
    end
    requests[#requests + 1] = wrk.format(method, nil, headers)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "p999_us": %d, "refused": %d, "errors": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout
  ))
end
