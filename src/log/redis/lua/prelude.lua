-- Prelude: what the scripts share. Put before each of them.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A flat list of names and values as a table.
local function named(flat)
  local fields = {}
  for at = 1, #flat, 2 do fields[flat[at]] = flat[at + 1] end
  return fields
end

local function number(value)
  return string.format('%.0f', value)
end

-- The field of meta that holds up to which id our fetches have put right how many entries a group has read.
local function counted(group)
  return 'counted*' .. group
end

-- Raises NOGROUP if the stream or the group is not there.
local function need_group(stream, group)
  redis.call('XPENDING', stream, group, '-', '+', 1)
end

-- What a reader has to know to tell a gap; empty: there is no stream.
local function state(stream, meta)
  if redis.call('EXISTS', stream) == 0 then return {} end
  local info = named(redis.call('XINFO', 'STREAM', stream))
  local noted = redis.call('HMGET', meta, 'trimmed', 'removed')
  local first, last = info['first-entry'], info['last-entry']
  return {
    info['length'], info['entries-added'] or '', info['last-generated-id'], info['max-deleted-entry-id'] or '',
    first and first[1] or '', last and last[1] or '', noted[1] or '', noted[2] or '', info['groups'],
  }
end

-- Trims, and notes up to where: `trimmed` is the newest removed id, or '(' and the oldest kept one where finding that would cost too much;
-- `removed` is how many of the entries ever added are gone, by whomever, so that a removal by somebody else afterwards shows.
local function trim(stream, meta, kind, arg)
  local newest, removed
  if kind == 'len' then
    local over = redis.call('XLEN', stream) - tonumber(arg)
    if over <= 0 then return 0 end
    if over <= 64 then
      local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', over)
      newest = oldest[#oldest][1]
    end
    removed = redis.call('XTRIM', stream, 'MAXLEN', '=', arg)
  else
    if kind == 'age' then
      local oldest = now_ms() - tonumber(arg)
      if oldest <= 0 then return 0 end
      arg = number(oldest) .. '-0'
    end
    local before = redis.call('XREVRANGE', stream, '(' .. arg, '-', 'COUNT', 1)
    if #before == 0 then return 0 end
    newest = before[1][1]
    removed = redis.call('XTRIM', stream, 'MINID', '=', arg)
  end
  local info = named(redis.call('XINFO', 'STREAM', stream))
  if not newest then
    local first = info['first-entry']
    newest = first and '(' .. first[1] or info['last-generated-id']
  end
  redis.call('HSET', meta, 'trimmed', newest, 'removed', number(info['entries-added'] - info['length']))
  return removed
end

-- Consumers that were removed while they had something pending go when it is taken.
local function sweep(stream, group, leaving)
  if redis.call('EXISTS', leaving) == 0 then return end
  for _, consumer in ipairs(redis.call('SMEMBERS', leaving)) do
    if #redis.call('XPENDING', stream, group, '-', '+', 1, consumer) == 0 then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer)
      redis.call('SREM', leaving, consumer)
    end
  end
end

-- Delivers a pending entry again: its id, attempt and fields; nil if it is not pending any more.
-- An entry that is not in the stream any more comes without fields and leaves the pending list: XCLAIM cannot hand it to anyone.
local function redeliver(stream, due, group, consumer, id, until_ms)
  local held = redis.call('XPENDING', stream, group, id, id, 1)[1]
  if not held then
    redis.call('ZREM', due, id)
    return nil
  end
  local attempt = held[4] + 1
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if not entry then
    redis.call('XACK', stream, group, id)
    redis.call('ZREM', due, id)
    return { id, attempt, false }
  end
  redis.call('XCLAIM', stream, group, consumer, 0, id, 'RETRYCOUNT', attempt, 'JUSTID')
  redis.call('ZADD', due, until_ms, id)
  return { id, attempt, entry[2] }
end

-- Tells the waiting fetches, wherever they are, that something may be due earlier than they know.
local function wake(key)
  redis.call('SET', key, number(now_ms()), 'PX', 60000)
end
