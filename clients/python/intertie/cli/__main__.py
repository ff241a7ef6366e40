"""`python -m intertie.cli`: the command by way of this interpreter."""

from intertie.cli.main import app

app(prog_name="intertie")
