//! Package URLs of images (<https://github.com/package-url/purl-spec>).

use cache::oci::{Platform, Reference};

use crate::purl::{escape, qualify};

/// The package URL of an image, of the type `docker` or, from an OCI layout, `oci`.
pub(in crate::daemon) fn purl(kind: &str, reference: &Reference, platform: Option<&Platform>) -> String {
    let repository = reference.repository();
    // As users write it: without what is implied.
    let hub = repository.strip_prefix("docker.io/");
    let name = hub.map_or(&*repository, |path| path.strip_prefix("library/").unwrap_or(path));
    let mut url = format!("pkg:{kind}/");
    escape(&mut url, name, |byte| byte == b'/');
    if let Some(tag) = reference.tag() {
        url.push('@');
        url.push_str(tag);
    }
    let digest = reference.digest().map(|digest| ("digest", digest.to_string()));
    let platform = platform.map(|platform| ("platform", platform.to_string()));
    for (name, value) in digest.into_iter().chain(platform) {
        qualify(&mut url, name, &value);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images() {
        let of = |name: &str| purl("docker", &Reference::parse(name).unwrap().with_default_tag(), None);
        assert_eq!(of("busybox"), "pkg:docker/busybox@latest");
        assert_eq!(of("moby/buildkit:v1"), "pkg:docker/moby/buildkit@v1");
        assert_eq!(of("localhost:5000/a/b:1"), "pkg:docker/localhost%3A5000/a/b@1");
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(of(&format!("a@{digest}")), format!("pkg:docker/a?digest={digest}"));
        let platform = Platform { os: "linux".into(), architecture: "amd64".into(), ..Platform::default() };
        let named = Reference::parse("busybox:1").unwrap();
        assert_eq!(purl("oci", &named, Some(&platform)), "pkg:oci/busybox@1?platform=linux%2Famd64");
        let mut url = purl("oci", &named, None);
        qualify(&mut url, "ref_type", "bundle");
        qualify(&mut url, "vcs_url", "http://h:1/.git#v1");
        assert_eq!(url, "pkg:oci/busybox@1?ref_type=bundle&vcs_url=http:%2F%2Fh:1%2F.git%23v1");
    }
}
