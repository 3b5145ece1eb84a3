//! `RUN --mount` and `--device`.

use frontend::mount::{Device, Mount};
use frontend::words::Lexer;

fn mount(value: &str) -> String {
    let lexer = Lexer::new('\\');
    let env = [("V".to_owned(), "value".to_owned())];
    let parsed = Mount::check(value).and_then(|()| {
        Mount::parse(value, &mut |word| lexer.expand(word, &env[..]).map(|expansion| expansion.text))
    });
    match parsed {
        Ok(mount) => format!("{mount:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn options() {
    insta::assert_snapshot!(mount("type=cache,target=/c,id=$V,sharing=LOCKED,uid=7,mode=0755,from=a,source=/s"), @r#"Mount { kind: Cache, from: "a", source: "/s", target: "/c", readonly: false, size: 0, id: "value", sharing: Some(Locked), required: false, env: None, mode: Some(493), uid: Some(7), gid: None }"#);
    insta::assert_snapshot!(mount("type=secret,id=x,required,env=X"), @r#"Mount { kind: Secret, from: "", source: "", target: "", readonly: true, size: 0, id: "x", sharing: None, required: true, env: Some("X"), mode: None, uid: None, gid: None }"#);
    insta::assert_snapshot!(mount("dst=/d,rw"), @r#"Mount { kind: Bind, from: "", source: "", target: "/d", readonly: false, size: 0, id: "", sharing: None, required: false, env: None, mode: None, uid: None, gid: None }"#);
    insta::assert_snapshot!(mount("type=tmpfs,\"target=/a,b\",size=1.5g"), @r#"Mount { kind: Tmpfs, from: "", source: "", target: "/a,b", readonly: false, size: 1610612736, id: "", sharing: None, required: false, env: None, mode: None, uid: None, gid: None }"#);
}

#[test]
fn mistakes() {
    let cases = [
        ("", "failed to parse csv mounts: EOF"),
        ("a\"b", "failed to parse csv mounts: parse error on line 1, column 2: bare \" in non-quoted-field"),
        ("type=cahce", "unsupported mount type \"cahce\" (did you mean cache?)"),
        ("type=cache,sharing=lock", "unsupported sharing value \"lock\" (did you mean locked?)"),
        ("type=bind,tarhet=/x", "unexpected key 'tarhet' in 'tarhet=/x' (did you mean target?)"),
        ("type=bind,nothing=like", "unexpected key 'nothing' in 'nothing=like'"),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("type=bind,required", "unexpected key 'required' for mount type 'bind'"),
        ("type=cache,size=1", "unexpected key 'size' for mount type 'cache'"),
        ("type=tmpfs,size=big", "invalid value for size: big"),
        ("ro=maybe", "invalid value for ro: maybe"),
        ("type=cache,mode=9", "invalid value 9 for mode"),
        ("type=cache,uid=-1", "invalid value -1 for uid"),
        ("type=bind,uid=1", "uid not allowed for \"bind\" type mounts"),
        ("from=$V,target=/x", "'from' doesn't support variable expansion, define alias stage instead"),
        ("type=secret,id=a,from=b", "secret mount should not have a from"),
        ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=secret,id=a,source=b", "both source and id can't be set"),
        ("type=ssh,sharing=shared", "invalid cache sharing set for ssh mount"),
        ("target=${V", "failed to process \"${V\": unsupported modifier (\u{fffd}) in substitution"),
    ];
    for (value, expected) in cases {
        assert_eq!(mount(value), expected, "{value}");
    }
}

#[test]
fn devices() {
    let device = |value: &str| match Device::parse(value) {
        Ok(device) => format!("{} {}", device.name, device.required),
        Err(error) => error.to_string(),
    };
    let cases = [
        ("vendor.com/gpu=all,required", "vendor.com/gpu=all true"),
        ("name=x,required=0", "x false"),
        ("x,name=y", "device name already set to x"),
        ("x,y", "invalid field 'y' must be a key=value pair"),
        ("x,requird=1", "unexpected key 'requird' in 'requird=1' (did you mean required?)"),
        ("x,required=so", "invalid value for required: so"),
    ];
    for (value, expected) in cases {
        assert_eq!(device(value), expected, "{value}");
    }
}
