module m
require (
	github.com/A/b v1.0.0 // indirect
)
replace github.com/A/b => c.d/e v2.0.0+incompatible
a.b/c v1.0.0 h1:x=
