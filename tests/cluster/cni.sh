#!/bin/sh
# A network for pods on one node: a pair of interfaces and an address for each, routes between it and the node.
# The CNI specification 1.0: the command is in CNI_COMMAND, the answer on the standard output.
set -eu
exec 9>>"$CNI_STATE/log"
configuration=$(cat)
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0"]}'; exit ;;
CHECK | GC | STATUS) exit ;;
esac
version=$(printf %s "$configuration" | tr -d '\n' | sed 's/.*"cniVersion" *: *"\([^"]*\)".*/\1/')
enter() { nsenter --net="$CNI_NETNS" "$@"; }
host=v$(printf %s "$CNI_CONTAINERID" | cut -c1-11)
if [ "${configuration#*\"loopback\"}" != "$configuration" ]; then
  [ "$CNI_COMMAND" = ADD ] && enter ip link set lo up
  echo '{"cniVersion":"'"$version"'","interfaces":[{"name":"lo"}],"ips":[{"version":"4","address":"127.0.0.1/8"}]}'
  exit
fi
if [ "$CNI_COMMAND" = DEL ]; then
  ip link delete "$host" 2>/dev/null || true
  exit
fi
exec 8>>"$CNI_STATE/lock"
flock 8
number=$(($(cat "$CNI_STATE/number" 2>/dev/null || echo 1) + 1))
echo "$number" >"$CNI_STATE/number"
flock -u 8
address=10.244.$((number / 250)).$((number % 250 + 1))
ip link add "$host" type veth peer name peer netns "$CNI_NETNS" >&9 2>&1
ip address add 169.254.1.1/32 dev "$host"
ip link set "$host" up
ip route add "$address/32" dev "$host"
enter ip link set peer name "$CNI_IFNAME"
enter ip address add "$address/32" dev "$CNI_IFNAME"
enter ip link set "$CNI_IFNAME" up
enter ip link set lo up
enter ip route add 169.254.1.1 dev "$CNI_IFNAME"
enter ip route add default via 169.254.1.1 dev "$CNI_IFNAME"
echo '{"cniVersion":"'"$version"'","interfaces":[{"name":"'"$CNI_IFNAME"'","sandbox":"'"$CNI_NETNS"'"}],' \
  '"ips":[{"version":"4","interface":0,"address":"'"$address"'/32"}]}'
