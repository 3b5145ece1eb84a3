//! Registries that a request says need not prove who they are (`registry.insecure=true`).

use std::collections::{BTreeMap, BTreeSet};

use cache::oci::Reference;
use frontend::number::boolean;
use proto::control::SolveRequest;

use super::remote_cache::told_imports;

/// The attribute.
const INSECURE: &str = "registry.insecure";

/// The hosts of a request's exporters and caches of which it says so.
pub(super) fn hosts(request: &SolveRequest) -> BTreeSet<String> {
    let told = told_imports(&request.frontend_attrs);
    let exporters = request.exporters.iter().map(|e| &e.attrs).chain([&request.exporter_attrs_deprecated]);
    let pushes = exporters.filter(|attrs| is_set(attrs, "push"));
    let caches = request.cache.as_ref();
    let written = caches.into_iter().flat_map(|caches| &caches.exports);
    let read = caches.into_iter().flat_map(|caches| &caches.imports).chain(&told);
    let all = pushes.chain(written.chain(read).map(|entry| &entry.attrs));
    all.filter(|attrs| is_set(attrs, INSECURE))
        .flat_map(names)
        .filter_map(|name| Some(Reference::parse(name).ok()?.domain().to_owned()))
        .collect()
}

fn is_set(attrs: &BTreeMap<String, String>, name: &str) -> bool {
    attrs.get(name).and_then(|value| boolean(value)).unwrap_or(false)
}

/// The images and repositories that attributes name.
fn names(attrs: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    let get = |name: &str| attrs.get(name).map_or("", String::as_str);
    let keyed = get("url").strip_prefix("registry://").unwrap_or_default();
    get("name").split(',').chain([get("ref"), keyed]).map(str::trim).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use proto::control::{CacheOptions, CacheOptionsEntry, Exporter};

    use super::*;

    #[test]
    fn hosts_of_a_request() {
        let attrs = |all: &[(&str, &str)]| -> std::collections::HashMap<_, _> {
            all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let entry = |all: &[(&str, &str)]| CacheOptionsEntry {
            r#type: "registry".to_owned(),
            attrs: attrs(all).into_iter().collect(),
        };
        let yes = (INSECURE, "true");
        let request = SolveRequest {
            exporters: vec![
                Exporter {
                    r#type: "image".to_owned(),
                    attrs: attrs(&[("name", "a.example/x:1, b.example:5000/y"), ("push", "true"), yes])
                        .into_iter()
                        .collect(),
                },
                Exporter {
                    r#type: "image".to_owned(),
                    attrs: attrs(&[("name", "no.example/pushed"), yes]).into_iter().collect(),
                },
                Exporter {
                    r#type: "image".to_owned(),
                    attrs: attrs(&[("name", "no.example/x"), ("push", "1"), (INSECURE, "false")])
                        .into_iter()
                        .collect(),
                },
            ],
            cache: Some(CacheOptions {
                exports: vec![entry(&[("ref", "c.example/z"), yes]), entry(&[("ref", "no.example/z")])],
                imports: vec![entry(&[("url", "registry://d.example/k"), yes])],
                ..CacheOptions::default()
            }),
            frontend_attrs: attrs(&[(
                "cache-imports",
                r#"[{"Type":"registry","Attrs":{"ref":"e.example/q","registry.insecure":"1"}}]"#,
            )])
            .into_iter()
            .collect(),
            ..SolveRequest::default()
        };
        let hosts: Vec<String> = hosts(&request).into_iter().collect();
        assert_eq!(hosts, ["a.example", "b.example:5000", "c.example", "d.example", "e.example"]);
    }
}
