//! Package URLs of images (<https://github.com/package-url/purl-spec>).

use cache::oci::{Platform, Reference};

/// The package URL of an image, of the type `docker` or, from an OCI layout, `oci`.
pub(in crate::daemon) fn purl(kind: &str, reference: &Reference, platform: Option<&Platform>) -> String {
    let repository = reference.repository();
    // As users write it: without what is implied.
    let hub = repository.strip_prefix("docker.io/");
    let name = hub.map_or(&*repository, |path| path.strip_prefix("library/").unwrap_or(path));
    let mut url = format!("pkg:{kind}/{name}");
    if let Some(tag) = reference.tag() {
        url.push('@');
        url.push_str(tag);
    }
    let digest = reference.digest().map(|digest| format!("digest={digest}"));
    let platform = platform.map(|platform| format!("platform={}", platform.to_string().replace('/', "%2F")));
    let qualifiers: Vec<String> = digest.into_iter().chain(platform).collect();
    if !qualifiers.is_empty() {
        url.push('?');
        url.push_str(&qualifiers.join("&"));
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
        assert_eq!(of("localhost:5000/a/b:1"), "pkg:docker/localhost:5000/a/b@1");
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(of(&format!("a@{digest}")), format!("pkg:docker/a?digest={digest}"));
        let platform = Platform { os: "linux".into(), architecture: "amd64".into(), ..Platform::default() };
        let named = Reference::parse("busybox:1").unwrap();
        assert_eq!(purl("oci", &named, Some(&platform)), "pkg:oci/busybox@1?platform=linux%2Famd64");
    }
}
