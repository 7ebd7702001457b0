#!/bin/sh
# Expected: a symbolic link to a folder of the project is in a source archive as a link or as a copy, and the folder too.
# Happens:  hatchling follows the link, remembers the folder by its inode, and leaves it out where it comes to it under
#           its own name. Which of the two paths is in the archive depends on the alphabet; there is no warning.
#           force-include of the link's own path brings both.
# Package:  hatchling 1.33.0
# Source:   https://github.com/pypa/hatch/blob/hatchling-v1.33.0/backend/src/hatchling/builders/utils.py (safe_walk)
# Date:     2026-11-28
# Output:
#> chart/objects/a.yaml
#> with force-include: chart/objects/a.yaml objects/a.yaml
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q --disable-pip-version-check hatchling==1.33.0
mkdir -p "$dir/p/chart" "$dir/p/objects"
echo 'kind: Service' >"$dir/p/objects/a.yaml"
ln -s ../objects "$dir/p/chart/objects"
printf '[project]\nname = "p"\nversion = "1"\n[tool.hatch.build.targets.sdist]\ninclude = ["chart", "objects"]\n' \
  >"$dir/p/pyproject.toml"

files() {
  (cd "$dir/p" && "$dir/v/bin/python" -m hatchling build -t sdist -d "$dir/dist" >"$dir/log" 2>&1)
  tar -tzf "$dir/dist/p-1.tar.gz" | sed -n 's/^p-1\///p' | grep yaml | sort
}
files >"$dir/seen"
echo 'force-include = { "chart/objects" = "chart/objects" }' >>"$dir/p/pyproject.toml"
echo "with force-include:" $(files) >>"$dir/seen"
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
