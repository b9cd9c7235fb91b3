from mtl.cli.main import module_entry

module_entry("serve")
