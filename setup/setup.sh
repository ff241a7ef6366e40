#!/bin/sh
# What `make setup` runs: finds the Python that the rest is written for, then hands over to it.
# Arguments name further lists of packages.
python=${PYTHON:-/usr/bin/python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
  . /etc/os-release 2>/dev/null
  echo "setup: $python is not Python 3.11 (this is ${PRETTY_NAME:-an unknown system})." >&2
  echo "  Intertie runs on Debian 12, whose python3 is 3.11: apt-get install python3" >&2
  exit 1
fi
cd "$(dirname "$0")/.." && exec "$python" -m setup "$@"
