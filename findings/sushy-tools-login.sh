#!/bin/sh
# Expected: an emulator of Redfish with logins has sessions: the specification wants them, and Links.Sessions in the
#           service root; a client that creates one learns whether the password is right.
# Happens:  with SUSHY_EMULATOR_AUTH_FILE, the service root names no sessions, and creating one is 401 with the right
#           password: authentication is in front of all paths, and this path does not exist. A client that logs in takes
#           the right password for a wrong one; by basic authentication it works.
# Package:  sushy-tools 2.2.0 (PyPI), with Flask's server
# Source:   https://opendev.org/openstack/sushy-tools (sushy_tools/emulator/main.py); DSP0266 13.3.4, DSP0268 ServiceRoot
# Date:     2026-11-29
# Output:
#> service root: Links.Sessions is absent
#> POST SessionService/Sessions, right password: 401
#> POST SessionService/Sessions, wrong password: 401
#> GET Systems, basic authentication, right password: 200
#> GET Systems, basic authentication, wrong password: 401
set -eu
dir=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || :; rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q --disable-pip-version-check sushy-tools==2.2.0 bcrypt==5.0.0

"$dir/v/bin/python" - >"$dir/htpasswd" <<'PY'
import bcrypt

print("user:" + bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode())
PY
echo "SUSHY_EMULATOR_AUTH_FILE = '$dir/htpasswd'" >"$dir/conf"
port=$("$dir/v/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$dir/v/bin/sushy-emulator" --fake -i 127.0.0.1 -p "$port" --config "$dir/conf" >"$dir/log" 2>&1 &
server=$!
url=http://127.0.0.1:$port/redfish/v1
tries=0
until curl -sf -o "$dir/root" "$url/"; do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { cat "$dir/log"; exit 1; }
    sleep 0.2
done
status() { curl -s -o /dev/null -w '%{http_code}' "$@"; }
login() { status -H 'Content-Type: application/json' -d "{\"UserName\": \"user\", \"Password\": \"$1\"}" \
    "$url/SessionService/Sessions"; }
{
    grep -q '"Sessions"' "$dir/root" && echo "service root: Links.Sessions is there" ||
        echo "service root: Links.Sessions is absent"
    echo "POST SessionService/Sessions, right password: $(login right)"
    echo "POST SessionService/Sessions, wrong password: $(login wrong)"
    echo "GET Systems, basic authentication, right password: $(status -u user:right "$url/Systems")"
    echo "GET Systems, basic authentication, wrong password: $(status -u user:wrong "$url/Systems")"
} >"$dir/seen"
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
