from mtl.cli.main import entry

entry()
