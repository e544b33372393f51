-- KEYS: run
-- ARGV: path, input, max_files (number), max_bytes (number)
-- Reply: outcome, status, then the input as it is stored. REFUSED if the run is not `created` any more; with the status
-- `created`, then follows why the input is refused: the path of an input that would be a folder of this one or the reverse,
-- or the number and the bytes of the inputs that the run would have. SAME if an input with this path and this content was
-- announced before: the stored one, with its object key, stays.

local found = redis.call('HMGET', run, 'status', 'condemned', 'inputs', 'inputs_version')
local status = found[1]
if not status or found[2] then return { 'GONE' } end
if status ~= 'created' then return { 'REFUSED', status } end
-- Path -> JSON text of the input. A text is stored as it came, because encoding it again would round times in ns.
local inputs = found[3] and cjson.decode(found[3]) or {}
local wanted, known = cjson.decode(input), inputs[path] and cjson.decode(inputs[path])
-- The file of another run is known by its object, uploaded content by its digest.
local same = known and known.from_run == wanted.from_run and known.entry.size_bytes == wanted.entry.size_bytes
if same and wanted.from_run then same = known.entry.key == wanted.entry.key end
if same and not wanted.from_run then same = known.entry.sha256 == wanted.entry.sha256 end
if same then return { 'SAME', status, inputs[path] } end
if not wanted.from_run then
  -- An uploaded file has no times in ns.
  wanted.entry.modified_ms = now_ms()
  input = cjson.encode(wanted)
end
inputs[path] = input
local files, bytes = 0, 0
for other, text in pairs(inputs) do
  local short, long = other .. '/', path .. '/'
  if #short > #long then short, long = long, short end
  if other ~= path and long:sub(1, #short) == short then return { 'REFUSED', status, other } end
  files, bytes = files + 1, bytes + cjson.decode(text).entry.size_bytes
end
if files > max_files or bytes > max_bytes then return { 'REFUSED', status, int(files), int(bytes) } end
redis.call('HSET', run, 'inputs', cjson.encode(inputs), 'inputs_version', int((tonumber(found[4]) or 0) + 1))
return { 'OK', status, input }
