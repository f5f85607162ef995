-- Append: what one XADD cannot do. KEYS: stream, meta, then one for each idempotency key.
-- ARGV: the expected last id or '', the window of keys in ms, 'len'|'before'|'age'|'' and its argument, this call's nonce, how many entries;
-- then for each entry: which key (0: none), how many arguments, and those.
local stream, meta, expect, window, nonce, count = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[5], tonumber(ARGV[6])
local exists = redis.call('EXISTS', stream) == 1

-- A key's value is the epoch of its topic, the id, and the nonce of the call: a topic made anew knows none of the old keys, and a call that is
-- repeated because its answer was lost finds that the entry is its own.
local epoch, known = false, {}
if #KEYS > 2 and exists then
  epoch = redis.call('HGET', meta, 'epoch')
  if epoch then
    for key = 3, #KEYS do
      local value = redis.call('GET', KEYS[key])
      if value then
        local of, id, by = string.match(value, '^(%S+) (%S+) (%S+)$')
        if of == epoch then known[key - 2] = { id, by == nonce and 0 or 1 } end
      end
    end
  end
end

local at, all = 7, true
for _ = 1, count do
  if not known[tonumber(ARGV[at])] then
    all = false
    break
  end
  at = at + 2 + tonumber(ARGV[at + 1])
end
if not all and expect ~= '' then
  local last = exists and named(redis.call('XINFO', 'STREAM', stream))['last-generated-id'] or '0-0'
  if last ~= expect then return { 'conflict', last } end
end

local out, added, fresh = { 'ok' }, {}, {}
at = 7
for _ = 1, count do
  local key, len = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local of = known[key]
  if of then
    out[#out + 1] = of[1]
    out[#out + 1] = of[2]
  else
    local id = redis.pcall('XADD', stream, '*', unpack(ARGV, at + 2, at + 1 + len))
    if type(id) == 'table' then
      -- All or nothing.
      for _, one in ipairs(added) do redis.call('XDEL', stream, one) end
      return id
    end
    added[#added + 1] = id
    out[#out + 1] = id
    out[#out + 1] = 0
    if key > 0 then
      known[key] = { id, 1 }
      fresh[#fresh + 1] = { key + 2, id }
    end
  end
  at = at + 2 + len
end

if #fresh > 0 then
  if not epoch then
    epoch = nonce
    redis.call('HSET', meta, 'epoch', epoch)
  end
  for _, key in ipairs(fresh) do
    redis.call('SET', KEYS[key[1]], epoch .. ' ' .. key[2] .. ' ' .. nonce, 'PX', window)
  end
end
if ARGV[3] ~= '' and #added > 0 then trim(stream, meta, ARGV[3], ARGV[4]) end
return out
