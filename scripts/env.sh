# Sourced by the other scripts: makes the virtual environment if needed and defines `python`.
# MTL_VENV names another place for it (default: .venv in the checkout). Safe to repeat.
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${MTL_VENV:-$root/.venv}"
extras="${1:-plot}"
stamp="$venv/.mtl-$( (cat "$root/pyproject.toml" "$root/constraints.txt"; echo "$root $extras") | sha256sum | cut -c1-16)"
if [ ! -f "$stamp" ]; then
  echo "setting up $venv (once)" >&2
  [ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
  # torch first and exact, so that pip does not look for a newer build on the way
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$(grep '^torch==' "$root/constraints.txt")"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    -c "$root/constraints.txt" -e "$root[$extras]"
  touch "$stamp"
fi
python="$venv/bin/python"
