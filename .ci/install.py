"""`python .ci/install.py VENV REQUIREMENTS` makes an environment and installs a file's packages and this one into it.

Without REQUIREMENTS it only refuses an environment of another Python than the one that it is started with. It says every few
seconds how far pip is, and shows pip's own words only if pip fails. It needs the standard library alone.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

EVERY_S = 5.0


def main(venv: Path, requirements: str = "") -> None:
  if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(
      f"error: {sys.executable} is Python {sys.version.split()[0]}; 3.11 to 3.13 is needed, e.g. make PYTHON=python3.12"
    )
  python = venv / "bin" / "python"
  if not requirements:
    refuse_other_python(venv, python)
    return
  if not python.exists():
    say(f"making a Python environment in {venv}")
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
  say(f"installing the packages of {requirements} into {venv} (once; 1 to 4 minutes, most of it downloads)")
  began = time.monotonic()
  pip(python, venv / "install.log", "-r", requirements)
  say("  the packages are in place; adding the command `xlmr`")
  pip(python, venv / "install.log", "--no-deps", "--editable", ".")
  say(f"  installed in {time.monotonic() - began:.0f} s")


def refuse_other_python(venv: Path, python: Path) -> None:
  """Exits if the environment is there and is of another Python: it would be used, and what was asked for would not."""
  if not python.exists():
    return
  print_version = "import sys; print('%d.%d' % sys.version_info[:2])"
  there = subprocess.run([python, "-I", "-S", "-c", print_version], capture_output=True, text=True).stdout.strip()
  here = f"{sys.version_info[0]}.{sys.version_info[1]}"
  if there != here:
    found = f"has Python {there}" if there else "has a Python that does not start"
    sys.exit(f"error: {venv} {found}, and {sys.executable} is {here}; remove {venv}, or give PYTHON={python}")


def pip(python: Path, log: Path, *what: str) -> None:
  """Runs pip to its end with its words in `log`, and says every few seconds how far it is. Exits if it fails."""
  command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar=off", *what]
  began = told = time.monotonic()
  with log.open("w") as file:
    child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
      while child.poll() is None:
        time.sleep(0.2)
        if time.monotonic() - told >= EVERY_S:
          told = time.monotonic()
          say(f"  {told - began:4.0f} s  {progress(log.read_text(errors='replace'), python.parents[1])}")
    finally:
      child.terminate()
  if child.returncode:
    print(log.read_text(errors="replace")[-3000:], file=sys.stderr)
    sys.exit(f"error: pip ended with {child.returncode}; its words are above and in {log}")


def progress(words: str, venv: Path) -> str:
  """One line about what pip is at, from what it has printed and what lies in the environment."""
  collected = len(re.findall(r"^\s*(?:Collecting|Requirement already satisfied:) ", words, re.MULTILINE))
  wanted = re.search(r"^Installing collected packages: (.*)$", words, re.MULTILINE)
  if wanted:
    there = {
      re.sub(r"[-_.]+", "_", path.name.split("-")[0]).lower() for path in venv.glob("lib/*/site-packages/*.dist-info")
    }
    names = {re.sub(r"[-_.]+", "_", name).lower() for name in wanted[1].split(", ")}
    return f"installing: {len(names & there)} of {len(names)} packages are in place"
  if not collected:
    return "preparing"
  last = re.findall(r"(?:Downloading|Using cached) (\S+?)(?:\.metadata)? \((.*?)\)", words)
  return f"downloading: {collected} packages found" + (f", at {last[-1][0].split('/')[-1]} ({last[-1][1]})" if last else "")


def say(text: str) -> None:
  print(text, flush=True)


if __name__ == "__main__":
  main(Path(sys.argv[1]), *sys.argv[2:])
