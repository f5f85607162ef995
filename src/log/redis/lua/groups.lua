-- The groups of a stream. KEYS: stream. Answers length, last id, oldest kept id or '', then a list for each group.
if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
local info = named(redis.call('XINFO', 'STREAM', KEYS[1]))
local first, last = info['first-entry'], info['last-entry']
local out = { info['length'], last and last[1] or '', first and first[1] or '' }
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = named(flat)
  out[#out + 1] = { group['name'], group['last-delivered-id'], group['pending'], group['consumers'], group['lag'] or '' }
end
return out
