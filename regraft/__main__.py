"""`python -m regraft`: the command line."""

from regraft.safe_path import ignore_current_folder

if __name__ == "__main__":
    ignore_current_folder()
    from regraft.cli.main import main

    main()
