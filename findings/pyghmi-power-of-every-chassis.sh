#!/bin/sh
# Expected: the power of a system is what its own chassis draws: 300 W of a blade.
# Happens:  get_system_power_watts() adds EnvironmentMetrics.PowerWatts of every chassis that the system names in
#           Links.Chassis. Those are the chassis that contain it, the enclosure of all blades too: 300 W + 4,000 W.
# Package:  pyghmi 1.6.19 (PyPI)
# Source:   https://opendev.org/x/pyghmi (pyghmi/redfish/oem/generic.py); DSP0268 ComputerSystem, Links.Chassis
# Date:     2026-11-29
# Output:
#> the blade: 300 W
#> the enclosure, in which it is: 4000 W
#> pyghmi, power of the system: 4300 W
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q --disable-pip-version-check pyghmi==1.6.19
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=bmc -keyout "$dir/key" -out "$dir/crt" 2>/dev/null

"$dir/v/bin/python" - "$dir" <<'PY'
import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from pyghmi.redfish.command import Command

R = "/redfish/v1"


def to(path):
    return {"@odata.id": R + path}


def chassis(name, watts, **links):
    return {"Id": name, "EnvironmentMetrics": to(f"/Chassis/{name}/EnvironmentMetrics"), "Links": links}, {
        "PowerWatts": {"Reading": watts}
    }


blade, blade_power = chassis("Blade", 300, ContainedBy=to("/Chassis/Enclosure"))
enclosure, enclosure_power = chassis("Enclosure", 4000, Contains=[to("/Chassis/Blade")])
RESOURCES = {
    "": {
        "Systems": to("/Systems"),
        "Chassis": to("/Chassis"),
        "Managers": to("/Managers"),
        "SessionService": to("/SessionService"),
        "Links": {"Sessions": to("/SessionService/Sessions")},
    },
    "/Systems": {"Members": [to("/Systems/1")]},
    "/Systems/1": {
        "Id": "1",
        "Links": {"Chassis": [to("/Chassis/Blade"), to("/Chassis/Enclosure")], "ManagedBy": [to("/Managers/1")]},
    },
    "/Managers": {"Members": [to("/Managers/1")]},
    "/Managers/1": {"Id": "1"},
    "/Chassis": {"Members": [to("/Chassis/Blade"), to("/Chassis/Enclosure")]},
    "/Chassis/Blade": blade,
    "/Chassis/Enclosure": enclosure,
    "/Chassis/Blade/EnvironmentMetrics": blade_power,
    "/Chassis/Enclosure/EnvironmentMetrics": enclosure_power,
}


class Handler(BaseHTTPRequestHandler):
    def answer(self, status, found, **headers):
        body = json.dumps(found).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        found = RESOURCES.get(self.path.removeprefix(R).split("?")[0].rstrip("/"))
        self.answer(404 if found is None else 200, found or {})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(201, {}, X_Auth_Token="token", Location=R + "/SessionService/Sessions/1")

    do_DELETE = do_GET

    def log_message(self, *_):
        pass


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1] + "/crt", sys.argv[1] + "/key")
server = HTTPServer(("127.0.0.1", 0), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()

port = server.server_address[1]
bmc = Command("127.0.0.1", "user", "password", verifycallback=lambda certificate: True, port=port)
print(f"the blade: {blade_power['PowerWatts']['Reading']} W")
print(f"the enclosure, in which it is: {enclosure_power['PowerWatts']['Reading']} W")
print(f"pyghmi, power of the system: {bmc.get_system_power_watts()} W")
PY
