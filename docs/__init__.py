"""The pages of the site, and the scripts that write parts of them from the code and its results."""
