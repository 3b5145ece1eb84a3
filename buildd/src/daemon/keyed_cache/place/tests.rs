//! What is read, and what is refused.

use super::*;

fn read<T>(attrs: &[(&str, &str)], read: impl Fn(&Attrs<'_>) -> Result<T, WrongAttr>) -> Result<T, String> {
    let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    read(&Attrs { attrs: &attrs, env: &|_| None }).map_err(|e| e.to_string())
}

#[test]
fn places() {
    for (url, want) in [
        ("s3://b", "s3://b (scope default)"),
        ("s3://b/p/q/", "s3://b/p/q/ (scope default)"),
        ("registry://127.0.0.1:5000/a/b", "registry://127.0.0.1:5000/a/b (scope default)"),
        ("file:///srv/cache", "file:///srv/cache (scope default)"),
        ("gs://b/p", "gs://b/p (scope default)"),
        ("azblob://c/p", "azblob://c/p (scope default)"),
        ("az://c", "az://c (scope default)"),
        ("gha://", "gha:// (scope default)"),
    ] {
        let more = [("account_url", "https://a.example"), ("token", "t"), ("url_v2", "https://b.example")];
        let attrs = [&[("url", url)], &more[..]].concat();
        let source = read(&attrs, KeyedSource::read).unwrap();
        assert_eq!(source.name(), want);
    }
    for (attrs, want) in [
        (&[][..], "url is missing"),
        (&[("url", "s3:///p")], "`s3:///p` names no bucket"),
        (&[("url", "registry://h/r:1")], "`registry://h/r:1` has a tag or a digest: name a repository"),
        (&[("url", "gs://")], "`gs://` names no bucket"),
        (&[("url", "az:///p")], "`az:///p` names no container"),
        (
            &[("url", "gs://b"), ("credential_path", "/etc/shadow")],
            "credential_path is for rbuild's own client, which reads the file",
        ),
        (
            &[("url", "gs://b"), ("credential", "{}")],
            "credential: only credentials files of the types `service_account`, `authorized_user` and `external_account` are taken",
        ),
        (
            &[("url", "azblob://c")],
            "either ${BUILDKIT_AZURE_STORAGE_ACCOUNT_URL} or account_url attribute is required for azblob cache",
        ),
        (&[("url", "gha://")], "token not set for github actions cache"),
        (&[("url", "gha://"), ("token", "t")], "url not set for github actions cache"),
        (
            &[("url", "/srv")],
            "`/srv` is no store: use one of s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, azblob://CONTAINER/PREFIX, gha://, \
             registry://HOST/REPOSITORY, file:///DIR",
        ),
        (
            &[("url", "s3://b"), ("scope", "a;B")],
            "`B` cannot be a scope: up to 40 small letters, digits, `-`, `_` and `.`, beginning with a letter or a digit",
        ),
        (&[("url", "s3://b"), ("trust", "x")], "trust: no `PUBLIC KEY` in PEM"),
        (&[("url", "s3://b"), ("trusts", "x")], "a keyed cache has no attribute `trusts`"),
    ] {
        assert_eq!(read(attrs, KeyedSource::read).unwrap_err(), want);
    }
    let prefix = |url| match read(&[("url", url)], KeyedPlace::read).unwrap().kind {
        Kind::Objects(_, prefix) => prefix,
        _ => unreachable!(),
    };
    assert_eq!(
        (prefix("s3://b"), prefix("s3://b/"), prefix("s3://b/p/q/")),
        (String::new(), String::new(), "p/q/".into())
    );
}

#[test]
fn what_is_written() {
    let at = ("url", "s3://b");
    let target =
        read(&[at, ("scope", "main"), ("mode", "min"), ("expire", "14d")], KeyedTarget::read).unwrap();
    assert_eq!((target.name().as_str(), target.all), ("s3://b (scope main)", false));
    assert_eq!(target.expire, Some(Duration::from_hours(14 * 24)));
    assert!(read(&[at], KeyedTarget::read).unwrap().all);
    for (name, value, want) in [
        ("scope", "a;b", "only one scope can be written"),
        ("mode", "most", "mode must be min or max, not `most`"),
        ("expire", "23h", "expire: less than a day is too short to tell what is in use"),
        ("expire", "soon", "expire: `soon` is no span of time such as `14d`, `2w` or `36h`"),
        ("expire", "1d12", "expire: `1d12` is no span of time such as `14d`, `2w` or `36h`"),
        ("trust", "", "trust is empty"),
        ("signing-key", " ", "signing-key is empty"),
        ("ignore-error", "perhaps", "ignore-error: invalid value `perhaps`"),
        ("signing-key", "x", "signing-key: no `PRIVATE KEY` in PEM"),
        ("signing_key", "x", "a keyed cache has no attribute `signing_key`"),
    ] {
        assert_eq!(read(&[at, (name, value)], KeyedTarget::read).unwrap_err(), want);
    }
}
#[test]
fn what_has_no_effect() {
    let idle = |attrs: &[(&str, &str)]| read(attrs, KeyedTarget::read).unwrap().idle();
    let (registry, bucket) = (("url", "registry://h/r"), ("url", "s3://b"));
    let mounts = |ids: &'static str| ("cache-mounts", ids);
    assert_eq!(
        idle(&[registry, ("expire", "14d"), mounts("npm"), ("mergeable", "npm;go")]),
        [
            "`expire=` has no effect on the cache registry://h/r (scope default): a registry removes what is old by rules of its own",
            "`mergeable=go` has no effect on the cache registry://h/r (scope default): `cache-mounts=` does not name it",
        ]
    );
    let github = [("url", "gha://"), ("token", "t"), ("url_v2", "https://b.example"), ("expire", "14d")];
    assert!(idle(&github)[0].ends_with("GitHub removes what is old by rules of its own"));
    let without = "`mergeable=` has no effect on the cache s3://b (scope default) without `cache-mounts=`";
    assert_eq!(idle(&[bucket, ("mergeable", "go")]), [without]);
    assert_eq!(idle(&[bucket, ("mergeable", "all")]), [without]);
    for more in [
        &[mounts("all"), ("mergeable", "go")][..],
        &[mounts("go"), ("mergeable", "all")],
        &[("expire", "14d")],
    ] {
        assert_eq!(idle(&[&[bucket], more].concat()), [""; 0], "{more:?}");
    }
}
