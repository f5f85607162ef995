-- Page. KEYS: stream, meta. ARGV: from which id, how many. Answers the entries and the state of that moment.
return { redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2]), state(KEYS[1], KEYS[2]) }
