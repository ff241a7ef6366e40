# Cuts the text at quotation marks, so that what lies outside strings is short and a long string
# (a file in base64) is never walked through character by character.

function fail(why) {
  print "JSON: " why > "/dev/stderr"
  failed = 1
  exit 1
}

function utf8(code) {
  if (code < 128) return sprintf("%c", code)
  if (code < 2048) return sprintf("%c%c", 192 + int(code / 64), 128 + code % 64)
  if (code < 65536)
    return sprintf("%c%c%c", 224 + int(code / 4096), 128 + int(code / 64) % 64, 128 + code % 64)
  return sprintf("%c%c%c%c", 240 + int(code / 262144), 128 + int(code / 4096) % 64, \
    128 + int(code / 64) % 64, 128 + code % 64)
}

function hex(digits,   i, value) {
  for (i = 1; i <= 4; i++) value = value * 16 + index("0123456789abcdef", tolower(substr(digits, i, 1))) - 1
  return value
}

function unescape(text,   n, part, i, out, head, code, pending) {
  n = split(text, part, "\\")
  out = part[1]
  for (i = 2; i <= n; i++) {
    if (part[i] == "") { # two backslashes: the next part is plain text
      out = out "\\" part[++i]
      continue
    }
    head = substr(part[i], 1, 1)
    if (head == "u") {
      code = hex(substr(part[i], 2, 4))
      if (code >= 55296 && code < 56320) { pending = code; continue }
      if (code >= 56320 && code < 57344) code = 65536 + (pending - 55296) * 1024 + code - 56320
      out = out utf8(code) substr(part[i], 6)
    } else {
      if (head == "n") head = "\n"
      else if (head == "t") head = "\t"
      else if (head == "r") head = "\r"
      else if (head == "b") head = "\b"
      else if (head == "f") head = "\f"
      out = out head substr(part[i], 2)
    }
  }
  return out
}

function here() {
  return kind[depth] == "[" ? path[depth] "/" count[depth] : path[depth] "/" key[depth]
}

function value(text) {
  if (depth == 0) fail("no object at the top")
  if (kind[depth] == "{" && !has_key[depth]) fail("a value without a key")
  files[++total] = here()
  body[total] = text
  if (kind[depth] == "[") count[depth]++
  has_key[depth] = 0
}

function bare() {
  if (word != "") { value(word); word = "" }
}

function open_at(mark,   at) {
  at = depth == 0 ? root : here()
  if (depth > 0 && kind[depth] == "[") count[depth]++
  has_key[depth] = 0
  depth++
  kind[depth] = mark
  path[depth] = at
  count[depth] = 0
  folders = folders " '" at "'"
}

function outside(text,   i, c) {
  for (i = 1; i <= length(text); i++) {
    c = substr(text, i, 1)
    if (c == "{" || c == "[") open_at(c)
    else if (c == "}" || c == "]") {
      bare()
      if (depth == 0 || kind[depth] != (c == "}" ? "{" : "[")) fail("a " c " too many")
      depth--
    } else if (c == ",") bare()
    else if (c == ":") {
      if (!waiting) fail("a colon without a key")
      gsub(/[^A-Za-z0-9_.:-]/, "_", name)
      if (name == "." || name == ".." || name == "") name = "_"
      key[depth] = name
      has_key[depth] = 1
      waiting = 0
    } else if (c ~ /[-+.0-9A-Za-z]/) word = word c
    else if (c !~ /[ \t\r\n]/) fail("an unexpected " c)
  }
}

{ text = text $0 "\n" }

END {
  if (failed) exit 1
  n = split(text, piece, "\"")
  for (p = 1; p <= n; p++) {
    outside(piece[p])
    if (++p > n) break
    string = piece[p]
    while (match(string, /\\+$/) && RLENGTH % 2 == 1 && p < n) string = string "\"" piece[++p]
    string = unescape(string)
    if (kind[depth] == "{" && !has_key[depth]) { name = string; waiting = 1 }
    else value(string)
  }
  if (depth != 0 || total == 0 && folders == "") fail("it ends too early")
  if (system("mkdir -p" folders)) exit 1
  for (i = 1; i <= total; i++) {
    printf "%s", body[i] > files[i]
    close(files[i])
  }
}
