//! An image, a blob and a file, the same each time.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::http::{answer, serve};

/// Without files in them: two blocks of zeros are an archive's end (POSIX.1-2017, pax, "ustar Interchange Format").
const LAYERS: [&[u8]; 2] = [&[0; 1024], &[0; 2048]];
const BLOB: &[u8] = b"a blob\n";
const FILE: &[u8] = b"file\n";
const OCI: &str = "application/vnd.oci.image";

/// A web server and registry on loopback. It ends with the test's process.
#[derive(Debug)]
pub struct Served {
    /// Host and port. The repository `img` has an image under the tag `1`, and a blob.
    pub host: String,
    /// The digest of the image's index.
    pub index: String,
    /// That of its manifest.
    pub manifest: String,
    /// That of a blob that is part of no image.
    pub blob: String,
    /// That of the file which is `/f.txt`, `/named` (with another name), `/timeless` and, elsewhere, `/away`; also below `/dir/`.
    pub file: String,
    /// What the image is made of.
    documents: Vec<Vec<u8>>,
}

/// Bytes, and the headers that come with them.
type File = (Vec<u8>, Vec<(&'static str, String)>);

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn described(kind: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": format!("{OCI}.{kind}"), "digest": digest(bytes), "size": bytes.len() })
}

impl Served {
    /// Starts the server.
    pub fn start() -> Self {
        let platform = json!({ "architecture": "amd64", "os": "linux" });
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": LAYERS.map(digest) },
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": format!("{OCI}.manifest.v1+json"),
            "config": described("config.v1+json", &config),
            "layers": LAYERS.map(|layer| described("layer.v1.tar", layer)),
        });
        let manifest = manifest.to_string().into_bytes();
        let mut of_platform = described("manifest.v1+json", &manifest);
        of_platform["platform"] = platform;
        let kind = format!("{OCI}.index.v1+json");
        let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": [of_platform] });
        let index = index.to_string().into_bytes();
        let mut files: BTreeMap<String, File> = BTreeMap::new();
        for blob in LAYERS.into_iter().chain([&config[..], BLOB]) {
            files.insert(format!("/v2/img/blobs/{}", digest(blob)), (blob.to_vec(), Vec::new()));
        }
        for (name, bytes, kind) in [
            (digest(&index), &index, "index"),
            ("1".into(), &index, "index"),
            (digest(&manifest), &manifest, "manifest"),
        ] {
            let kind = ("Content-Type", format!("{OCI}.{kind}.v1+json"));
            let headers = vec![kind, ("Docker-Content-Digest", digest(bytes))];
            files.insert(format!("/v2/img/manifests/{name}"), (bytes.clone(), headers));
        }
        files.insert("/v2/".to_owned(), Default::default());
        let time = ("Last-Modified", "Sun, 09 Sep 2001 01:46:40 GMT".to_owned());
        let name = ("Content-Disposition", "attachment; filename=\"x.bin\"".to_owned());
        let away = ("Location", "/f.txt".to_owned());
        for (path, headers) in [
            ("/f.txt", vec![time.clone()]),
            ("/named", vec![time, name]),
            ("/timeless", vec![]),
            ("/away", vec![away]),
            ("/dir/sp ace", vec![]),
            ("/dir/", vec![]),
        ] {
            files.insert(path.to_owned(), (FILE.to_vec(), headers));
        }
        let documents = [&index, &manifest, &config].map(Clone::clone).into_iter();
        let documents = documents.chain(LAYERS.map(<[u8]>::to_vec)).collect();
        let (index, manifest) = (digest(&index), digest(&manifest));
        let address = serve(move |request| {
            let Some((bytes, headers)) = files.get(&request.path) else { return answer(404, &[], &[]) };
            let status = if headers.iter().any(|(name, _)| *name == "Location") { 302 } else { 200 };
            let length = bytes.len().to_string();
            let mut headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
            headers.push(("Content-Length", &length));
            answer(status, &headers, if request.method == "HEAD" { &[] } else { bytes })
        });
        let (blob, file) = (digest(BLOB), digest(FILE));
        Self { host: address.to_string(), index, manifest, blob, file, documents }
    }

    /// Writes the image as an OCI layout.
    ///
    /// # Panics
    /// When the directory cannot be written.
    pub fn write_layout(&self, dir: &Path) {
        let blobs = dir.join("blobs/sha256");
        fs_err::create_dir_all(&blobs).expect("a directory");
        for document in &self.documents {
            fs_err::write(blobs.join(digest(document).trim_start_matches("sha256:")), document)
                .expect("a blob");
        }
        let index = described("index.v1+json", &self.documents[0]);
        let index = json!({ "schemaVersion": 2, "manifests": [index] });
        fs_err::write(dir.join("index.json"), index.to_string()).expect("an index");
        fs_err::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a mark");
    }
}
