"""A package, so that Ray's workers find these tests: some libraries bring a package named `tests` as well."""
