object 770e87a85ded94379e77a337d60050fc1f06783c
type commit
tag v-gpg
tagger t <t@t> 1590969600 +0000

tagged by gpg
-----BEGIN PGP SIGNATURE-----

iIAEABYIACgWIQRRbezhMwWnxroNkgeo1X/YN9XrNAUCXtRFAAocZWQyNTUxOUB4
AAoJEKjVf9g31es0oGoBAN5//RlK4rGE6uxwA2OXTrHyYKPPyVkj7qbb/zBKvaxb
AP96BzfnU8YQbYJr6ylGMICLDfwctfySd3gunK5LgDGtBQ==
=unCw
-----END PGP SIGNATURE-----
