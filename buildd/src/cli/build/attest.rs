//! `--attest` and `--provenance`: what is to be told of the image, beside it.

use std::collections::BTreeMap;

use frontend::number::boolean;

use crate::client::ClientError;
use crate::csv::fields;

/// Of what is pushed it is told how it came about, if nothing else is said (as in buildx).
const OF_PUSHES: &str = "mode=min,inline-only=true";

/// The frontend's settings for `--attest`, and for `--provenance` and `--sbom` after them: the last of a type counts. `pushes` says that
/// the result is pushed, and that this is to be told of.
///
/// # Errors
/// A value without a type, or with a switch that is neither on nor off.
pub(super) fn attestations(
    attest: &[String],
    provenance: Option<&str>,
    sbom: Option<&str>,
    pushes: bool,
) -> Result<BTreeMap<String, String>, ClientError> {
    let mut wanted: BTreeMap<String, Option<String>> = BTreeMap::new();
    if pushes {
        wanted.insert("provenance".to_owned(), Some(OF_PUSHES.to_owned()));
    }
    for text in attest {
        let (kind, value) = read(text)?;
        wanted.insert(kind, value);
    }
    for (kind, text) in [("provenance", provenance), ("sbom", sbom)] {
        let Some(text) = text.filter(|text| !text.is_empty()) else { continue };
        let value = match boolean(text) {
            Some(on) => on.then(String::new),
            None => read(&format!("type={kind},{text}"))?.1,
        };
        wanted.insert(kind.to_owned(), value);
    }
    let attr = |(kind, value): (String, Option<String>)| Some((format!("attest:{kind}"), value?));
    Ok(wanted.into_iter().filter_map(attr).collect())
}

/// The type, and the other fields; `None` where it is switched off.
fn read(text: &str) -> Result<(String, Option<String>), ClientError> {
    let invalid = |what: &str| ClientError::Usage(format!("invalid value `{text}` for `--attest`: {what}"));
    let (mut kind, mut off, mut rest) = (None, false, Vec::new());
    for field in fields(text)? {
        let (key, value) = field.split_once('=').ok_or_else(|| invalid("want KEY=VALUE"))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "type" => kind = Some(value.to_owned()),
            "disabled" => off = boolean(value).ok_or_else(|| invalid("`disabled` is true or false"))?,
            _ => rest.push(quoted(&field)),
        }
    }
    let kind = kind.filter(|kind| !kind.is_empty()).ok_or_else(|| invalid("want type=TYPE"))?;
    Ok((kind, (!off).then(|| rest.join(","))))
}

/// A field as a list holds it.
fn quoted(field: &str) -> String {
    match field.contains([',', '"']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(attest: &[&str], provenance: Option<&str>) -> Vec<(String, String)> {
        let attest: Vec<String> = attest.iter().map(|&text| text.to_owned()).collect();
        attestations(&attest, provenance, None, false).unwrap().into_iter().collect()
    }

    fn attr(name: &str, value: &str) -> Vec<(String, String)> {
        vec![(name.to_owned(), value.to_owned())]
    }

    #[test]
    fn the_last_of_a_type_counts() {
        assert_eq!(of(&[], None), []);
        assert_eq!(of(&[], Some("false")), []);
        assert_eq!(of(&[], Some("true")), attr("attest:provenance", ""));
        assert_eq!(
            of(&[], Some("mode=max,inline-only=1")),
            attr("attest:provenance", "mode=max,inline-only=1")
        );
        assert_eq!(of(&["type=provenance,mode=max"], Some("0")), []);
        assert_eq!(
            of(&["type=provenance,disabled=true", "mode=min,type=provenance"], None),
            attr("attest:provenance", "mode=min")
        );
        let list = r#"type=provenance,"builder-id=a,b""#;
        assert_eq!(of(&[list], None), attr("attest:provenance", r#""builder-id=a,b""#));
    }

    #[test]
    fn pushes() {
        let pushed =
            |provenance| attestations(&[], provenance, None, true).unwrap().into_iter().collect::<Vec<_>>();
        assert_eq!(pushed(None), attr("attest:provenance", "mode=min,inline-only=true"));
        assert_eq!(pushed(Some("false")), []);
        assert_eq!(pushed(Some("mode=max")), attr("attest:provenance", "mode=max"));
    }

    #[test]
    fn scanners() {
        let of =
            |sbom: &str| attestations(&[], None, Some(sbom), false).unwrap().into_iter().collect::<Vec<_>>();
        assert_eq!(of("true"), attr("attest:sbom", ""));
        assert_eq!(of("0"), []);
        assert_eq!(of("generator=a,x=y"), attr("attest:sbom", "generator=a,x=y"));
    }

    #[test]
    fn malformed() {
        for bad in
            ["", "provenance", "mode=max", "type=", "type=provenance,disabled=perhaps", "\"type=provenance"]
        {
            assert!(attestations(&[bad.to_owned()], None, None, false).is_err(), "{bad}");
        }
    }
}
