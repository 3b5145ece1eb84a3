//! Sources that only clients with graphs of their own ask for: blobs of images, bundles, downloads with headers, what is to be signed.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use proto::gateway::{
    ResolveImageConfigRequest, ResolveSourceGitRequest, ResolveSourceImageRequest, ResolveSourceMetaRequest,
};
use proto::pb;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tests::llb::{Edge, Llb};
use tests::{Api, Auth, Scene, ready};

/// A file that a server gives, and the headers that come with it.
#[derive(Debug, Clone, Default)]
struct File {
    bytes: Vec<u8>,
    headers: Vec<(&'static str, String)>,
}

/// A web server that notes what it is asked. It ends with the test's process.
struct Server {
    host: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(files: HashMap<String, File>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let notes = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(stream, &files, &notes);
            }
        });
        Self { host, asked }
    }

    /// The requests so far, each with its headers, in lower case.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, files: &HashMap<String, File>, notes: &Mutex<Vec<String>>) {
    let mut request = String::new();
    for line in BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        request.push_str(&line.to_lowercase());
        request.push('\n');
    }
    let words: Vec<&str> = request.split_whitespace().take(2).collect();
    let (head, file) = match words[..] {
        [method, path] => {
            (method == "head", path.split('?').next().and_then(|path| files.get(path)).cloned())
        }
        _ => return,
    };
    notes.lock().unwrap().push(request);
    let status = if file.is_some() { "200 OK" } else { "404 Not Found" };
    let File { bytes, headers } = file.unwrap_or_default();
    let mut answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n", bytes.len());
    for (name, value) in headers {
        answer.push_str(&format!("{name}: {value}\r\n"));
    }
    answer.push_str("\r\n");
    let mut answer = answer.into_bytes();
    if !head {
        answer.extend(bytes);
    }
    let _ = stream.write_all(&answer);
}

fn source(llb: &mut Llb, identifier: &str, attrs: &[(&str, &str)]) -> Edge {
    let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    llb.op(&[], pb::op::Op::Source(pb::SourceOp { identifier: identifier.to_owned(), attrs }))
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

#[test]
fn downloads_with_headers_and_codings() {
    if !ready() {
        return;
    }
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(b"the text\n").unwrap();
    let packed = File {
        bytes: packed.finish().unwrap(),
        headers: vec![("Content-Encoding", "gzip".into()), ("ETag", "\"1\"".into())],
    };
    let cut = File { bytes: packed.bytes[..packed.bytes.len() - 9].to_vec(), ..packed.clone() };
    let server = Server::start([("/packed".to_owned(), packed), ("/cut".to_owned(), cut)].into());
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let gateway = api.gateway("downloads");
    let attrs = [
        ("http.header.accept", "a/b"),
        ("http.header.user-agent", "me"),
        ("http.header.x-other", "no"),
        ("http.filename", "../name"),
    ];
    let mut llb = Llb::new();
    let file = source(&mut llb, &format!("http://{}/packed", server.host), &attrs);
    assert_eq!(gateway.read(llb.definition(&file), "/name").unwrap(), "the text\n");
    let asked = server.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    for header in ["accept: a/b\n", "user-agent: me\n", "accept-encoding: gzip\n"] {
        assert!(asked[0].contains(header), "{asked:?}");
    }
    assert!(!asked[0].contains("x-other"), "{asked:?}");
    for (path, attr, reason) in [
        ("cut", ("http.uid", "0"), "corrupt "),
        ("packed", ("http.authheadersecret", "absent"), "failed to retrieve HTTP auth secret absent"),
    ] {
        let file = source(&mut llb, &format!("http://{}/{path}", server.host), &[attr]);
        let error = gateway.read(llb.definition(&file), "/packed").unwrap_err();
        assert!(error.message().contains(reason), "{path}: {error}");
    }
    gateway.end();
}

#[test]
fn blobs_of_registries_are_files() {
    if !ready() {
        return;
    }
    let (good, bad) = (b"a blob\n".to_vec(), digest(b"something else"));
    let at = |digest: &str| format!("/v2/some/name/blobs/{digest}");
    let file = |bytes: &[u8]| File { bytes: bytes.to_vec(), ..File::default() };
    let server =
        Server::start([(at(&digest(&good)), file(&good)), (at(&bad), file(b"someth1ng else"))].into());
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let gateway = api.gateway("blobs");
    let mut llb = Llb::new();
    let name = |digest: &str| format!("docker-image+blob://{}/some/name@{digest}", server.host);
    let blob = source(&mut llb, &name(&digest(&good)), &[("http.perm", "0640"), ("http.uid", "12")]);
    let path = digest(&good).replace("sha256:", "/");
    assert_eq!(gateway.read(llb.definition(&blob), &path).unwrap(), "a blob\n");
    let asked = server.asked().len();
    let named = source(&mut llb, &name(&digest(&good)), &[("http.filename", "f")]);
    assert_eq!(gateway.read(llb.definition(&named), "/f").unwrap(), "a blob\n");
    assert_eq!(server.asked().len(), asked, "it is here already");
    for (identifier, reason) in [
        (name(&bad), "was asked for, registry"),
        (name(&digest(b"nowhere")), "is not in `some/name`"),
        (name(&digest(&good)).replace("docker-image", "oci-layout"), "requires store id"),
        (format!("docker-image+blob://{}/some/name:tag", server.host), "names no blob"),
    ] {
        let blob = source(&mut llb, &identifier, &[]);
        let error = gateway.read(llb.definition(&blob), "/f").unwrap_err();
        assert!(error.message().to_lowercase().contains(reason), "{identifier}: {error}");
    }
    gateway.end();
}

/// From an image's index to the statements about it.
#[test]
fn what_vouches_for_an_image() {
    if !ready() {
        return;
    }
    const SLSA: &str = "https://slsa.dev/provenance/v1";
    let scene = Scene::new();
    let registry = scene.registry(Auth::Open);
    let (vouched, plain) = (format!("{}/vouched:1", registry.host()), format!("{}/plain:1", registry.host()));
    let text = "FROM scratch\nCOPY Dockerfile /\n";
    scene.dockerfile(text, &["-t", &vouched, "--push", "--provenance=true"]).ok();
    scene.dockerfile(text, &["-t", &plain, "--push", "--provenance=false"]).ok();
    let api = Api::connect(&scene.daemon);
    let gateway = api.gateway("vouched");
    let ask = |name: &str, types: &[&str]| {
        let image = ResolveSourceImageRequest {
            no_config: true,
            attestation_chain: true,
            resolve_attestations: types.iter().map(|kind| (*kind).to_owned()).collect(),
        };
        let request = ResolveSourceMetaRequest {
            source: Some(pb::SourceOp { identifier: format!("docker-image://{name}"), ..Default::default() }),
            image: Some(image),
            ..ResolveSourceMetaRequest::default()
        };
        let (mut bridge, request) = (api.bridge(), gateway.request(request));
        let answer = api.runtime.block_on(async move { bridge.resolve_source_meta(request).await });
        answer.unwrap().into_inner().image.unwrap()
    };
    let told = ask(&vouched, &[SLSA]);
    let chain = told.attestation_chain.unwrap();
    assert_eq!((told.config.len(), &chain.root), (0, &told.digest));
    let json = |digest: &str| -> Value { serde_json::from_slice(&chain.blobs[digest].data).unwrap() };
    assert_eq!(json(&chain.root)["manifests"][0]["digest"], chain.image_manifest);
    let layer = json(&chain.attestation_manifest)["layers"][0].clone();
    assert_eq!(layer["annotations"]["in-toto.io/predicate-type"], SLSA);
    let statement = json(layer["digest"].as_str().unwrap());
    assert_eq!(
        format!("sha256:{}", statement["subject"][0]["digest"]["sha256"].as_str().unwrap()),
        chain.image_manifest
    );
    assert_eq!((chain.blobs.len(), chain.signature_manifests.len()), (3, 0), "and not the image's manifest");
    let documents = ask(&vouched, &["https://example.com/other"]).attestation_chain.unwrap();
    assert_eq!(documents.blobs.len(), 2, "no statement of another type");
    assert_eq!(ask(&plain, &[SLSA]).attestation_chain, None, "no index, no statements");
    gateway.end();
}

/// A digest that somebody learned of does not open what others pulled from elsewhere.
#[test]
fn images_by_digest_come_from_their_own_repository() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let registry = scene.registry(Auth::Open);
    let host = registry.host().to_owned();
    let base = format!("{host}/base:1");
    scene.run(&["tag", "base", &base]).ok();
    scene.run(&["push", "-q", &base]).ok();
    scene
        .dockerfile(&format!("FROM {base}\nRUN true\n"), &["-o", "../o", "--metadata-file", "../m.json"])
        .ok();
    let digest = {
        let api = Api::connect(&scene.daemon);
        let gateway = api.gateway("digest");
        let request = ResolveImageConfigRequest {
            r#ref: base.clone(),
            resolve_mode: "pull".into(),
            ..Default::default()
        };
        let (mut bridge, request) = (api.bridge(), gateway.request(request));
        let answer = api.runtime.block_on(async move { bridge.resolve_image_config(request).await }).unwrap();
        gateway.end();
        answer.into_inner().digest
    };
    let from = |repository: &str| {
        scene.dockerfile(&format!("FROM {repository}@{digest}\nRUN true\n"), &["-t", "made"])
    };
    for other in [format!("{host}/other"), "no-such-host.invalid/base".to_owned()] {
        let refused = from(&other).fails();
        assert!(
            refused.stderr.contains("not found") || refused.stderr.contains("no such host"),
            "{}",
            refused.stderr
        );
    }
    drop(registry);
    // It is known to be there, so nobody is asked.
    from(&format!("{host}/base")).ok();
}

fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=master"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn bundles_stand_in_for_repositories() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    git(dir.path(), &["init", "-q"]);
    for text in ["one", "two"] {
        fs_err::write(dir.path().join("file"), text).unwrap();
        git(dir.path(), &["add", "."]);
        git(dir.path(), &["commit", "-q", "-m", text]);
    }
    git(dir.path(), &["tag", "-a", "-m", "x", "v1", "HEAD~1"]);
    let (first, second) =
        (git(dir.path(), &["rev-parse", "HEAD~1"]), git(dir.path(), &["rev-parse", "HEAD"]));
    git(dir.path(), &["bundle", "create", "-q", "b", "master", "v1"]);
    let bundle = fs_err::read(dir.path().join("b")).unwrap();
    let (sum, garbage) = (digest(&bundle), b"no bundle".to_vec());
    let at = |digest: &str| format!("/v2/b/blobs/{digest}");
    let file = |bytes: &[u8]| File { bytes: bytes.to_vec(), ..File::default() };
    let server = Server::start([(at(&sum), file(&bundle)), (at(&digest(&garbage)), file(&garbage))].into());
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let gateway = api.gateway("bundles");
    let mut llb = Llb::new();
    let mut read = |reference: &str, commit: &str, sum: &str, more: &[(&str, &str)], path: &str| {
        let locator = format!("docker-image+blob://{}/b@{sum}", server.host);
        // The remote does not exist: everything comes from the bundle.
        let url = ("git.fullurl", "https://nowhere.invalid/r.git");
        let attrs = [&[url, ("git.checksum", commit), ("git.bundle", &locator)], more].concat();
        let source = source(&mut llb, &format!("git://nowhere.invalid/r.git#{reference}"), &attrs);
        gateway.read(llb.definition(&source), path).map_err(|error| error.message().to_owned())
    };
    for (reference, commit, text) in [
        ("", &second, "two"),
        ("master", &second, "two"),
        ("v1", &first, "one"),
        ("refs/tags/v1", &first, "one"),
        (&*first, &first, "one"),
        ("", &second[..8].to_owned(), "two"),
    ] {
        assert_eq!(read(reference, commit, &sum, &[], "/file").as_deref(), Ok(text), "{reference} {commit}");
    }
    let made = read("master", &second, &sum, &[("git.checkoutbundle", "true")], "/bundle").unwrap();
    assert!(made.starts_with("# v2 git bundle\n") && made.contains(&format!("{second} refs/heads/master")));
    assert!(!made.contains(&format!("-{first}")), "the history is in it");
    let absent = "0123456789abcdef0123456789abcdef01234567";
    for (reference, commit, sum, reason) in [
        ("master", &*first, &*sum, "expected checksum to match"),
        ("nothing", &second, &sum, "does not contain ref nothing"),
        ("", absent, &sum, "not found in bundle"),
        ("master", &second, &digest(&garbage), "does not look like a v2 or v3 bundle file"),
    ] {
        let error = read(reference, commit, sum, &[], "/file").unwrap_err();
        assert!(error.contains(reason), "{reference} {commit}: {error}");
    }
    gateway.end();
}

/// A key or a signature of the fast tests; `make` beside them says what each is.
fn vector(name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../buildd/src/signatures/vectors");
    fs_err::read_to_string(dir.join(name)).unwrap()
}

#[test]
fn signed_downloads() {
    if !ready() {
        return;
    }
    let data = vector("data");
    let file = |text: &str| File {
        bytes: text.as_bytes().to_vec(),
        headers: vec![("ETag", digest(text.as_bytes()))],
    };
    let server =
        Server::start([("/good".to_owned(), file(&data)), ("/bad".to_owned(), file("other\n"))].into());
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let gateway = api.gateway("signed");
    let mut llb = Llb::new();
    let mut read = |path: &str, attrs: &[(&str, &str)]| {
        let file = source(&mut llb, &format!("http://{}/{path}", server.host), attrs);
        gateway.read(llb.definition(&file), &format!("/{path}")).map_err(|error| error.message().to_owned())
    };
    let (keys, others, signature) = (vector("ed25519.pub"), vector("p256.pub"), vector("ed25519.sig"));
    let by = ("http.sig.pubkey", keys.as_str());
    let signed = ("http.sig.signature", signature.as_str());
    let both = format!("{others}\n{keys}");
    // What was fetched unverified, and lies in the cache, is verified all the same.
    assert_eq!(read("bad", &[]).as_deref(), Ok("other\n"));
    assert_eq!(read("good", &[]).as_deref(), Ok(&*data));
    assert_eq!(read("good", &[by, signed]).as_deref(), Ok(&*data));
    assert_eq!(read("good", &[("http.sig.pubkey", &both), signed]).as_deref(), Ok(&*data));
    let (sum, bad_sum) = (digest(data.as_bytes()), digest(b"other\n"));
    assert_eq!(read("good", &[by, signed, ("http.checksum", &sum)]).as_deref(), Ok(&*data));
    let half = "http signature verification requires both pubkey and signature";
    for (path, attrs, reason) in [
        ("bad", &[by, signed][..], "failed to verify pgp signature: signature by "),
        ("bad", &[by, signed, ("http.checksum", &bad_sum)], "failed to verify pgp signature: signature by "),
        ("good", &[("http.sig.pubkey", &others), signed], "signature made by unknown entity"),
        ("good", &[by], half),
        ("good", &[signed], half),
        ("good", &[by, signed, ("http.sig.other", "x")], "such a signature cannot be verified"),
        ("good", &[("git.sig.pubkey", "x")], "such a signature cannot be verified"),
    ] {
        let error = read(path, attrs).unwrap_err();
        assert!(error.contains(reason), "{path} {attrs:?}: {error}");
    }
    let unverified = server.asked().iter().filter(|request| request.starts_with("get /good ")).count();
    assert_eq!(unverified, 2, "once, and once with a checksum: who signed it asks for no further copy");
    let image = source(&mut llb, "docker-image://docker.io/library/base:latest", &[by]);
    let error = gateway.read(llb.definition(&image), "/").unwrap_err();
    assert!(error.message().contains("such a signature cannot be verified"), "{error}");
    gateway.end();
}

/// A repository with the signed objects of the fast tests and some that are not, as its web server has it.
fn signed_repository(dir: &Path) -> HashMap<String, File> {
    git(dir, &["init", "-q"]);
    fs_err::write(dir.join("file"), "signed\n").unwrap();
    git(dir, &["add", "file"]);
    git(dir, &["write-tree"]);
    let store = |kind: &str, name: &str| {
        fs_err::write(dir.join("object"), vector(name)).unwrap();
        git(dir, &["hash-object", "-w", "-t", kind, "object"])
    };
    let commit = store("commit", "gpg.commit");
    store("commit", "ssh.commit");
    let tag = store("tag", "ssh.tag");
    git(dir, &["update-ref", "refs/heads/signed", &commit]);
    git(dir, &["update-ref", "refs/tags/signed-tag", &tag]);
    fs_err::write(dir.join("file"), "plain\n").unwrap();
    git(dir, &["commit", "-q", "-a", "-m", "plain"]);
    git(dir, &["tag", "-a", "-m", "plain", "plain-tag"]);
    git(dir, &["update-server-info"]);
    let files = walkdir::WalkDir::new(dir.join(".git")).into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file()).map(|entry| {
        let name = entry.path().strip_prefix(dir.join(".git")).unwrap().display().to_string().to_lowercase();
        (format!("/r.git/{name}"), File { bytes: fs_err::read(entry.path()).unwrap(), ..File::default() })
    });
    files.collect()
}

#[test]
fn signed_commits() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let files = signed_repository(dir.path());
    let id = |name: &str| git(dir.path(), &["rev-parse", name]);
    let (commit, tag, plain) = (id("signed"), id("signed-tag"), id("master"));
    // A server that says of a good tag that it stands for another commit.
    let mut lies = files.clone();
    let listing = lies.get_mut("/r.git/info/refs").unwrap();
    let told = String::from_utf8(listing.bytes.clone()).unwrap();
    listing.bytes = told.replace(&id("signed-tag^{}"), &plain).into_bytes();
    assert_ne!(told.as_bytes(), listing.bytes);
    let (server, liar) = (Server::start(files), Server::start(lies));
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let (pgp, ssh, other) = (vector("ed25519.pub"), vector("ed25519.ssh"), vector("p256.pub"));
    let op = |host: &str, reference: &str, attrs: &[(&str, &str)]| {
        let url = format!("http://{host}/r.git");
        let attrs = [&[("git.fullurl", url.as_str())], attrs].concat();
        let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        pb::SourceOp { identifier: format!("git://{host}/r.git#{reference}"), attrs }
    };
    let read = |host: &str, reference: &str, attrs: &[(&str, &str)]| {
        let (gateway, mut llb) = (api.gateway("signed"), Llb::new());
        let source = llb.op(&[], pb::op::Op::Source(op(host, reference, attrs)));
        let text = gateway.read(llb.definition(&source), "/file").map_err(|error| error.message().to_owned());
        gateway.end();
        text
    };
    let (pgp, ssh, other) =
        (("git.sig.pubkey", &*pgp), ("git.sig.pubkey", &*ssh), ("git.sig.pubkey", &*other));
    let (require, ignore) = (("git.sig.requiresignedtag", "true"), ("git.sig.ignoresignedtag", "true"));
    let keep = ("git.keepgitdir", "true");
    for (reference, attrs, text) in [
        // What was fetched unverified lies in the cache when it is to be verified, below.
        ("master", &[][..], "plain\n"),
        ("signed-tag", &[], "signed\n"),
        ("signed", &[pgp], "signed\n"),
        ("signed", &[pgp, keep], "signed\n"),
        ("signed", &[pgp, ("git.sig.rejectexpired", "true")], "signed\n"),
        (&commit, &[pgp], "signed\n"),
        ("signed-tag", &[ssh, require], "signed\n"),
        ("signed-tag", &[ssh, require, keep], "signed\n"),
        ("signed-tag", &[ssh, ignore], "signed\n"),
        (&tag, &[ssh, require], "signed\n"),
    ] {
        assert_eq!(read(&server.host, reference, attrs).as_deref(), Ok(text), "{reference} {attrs:?}");
    }
    for (host, reference, attrs, reason) in [
        (&server, "master", &[pgp][..], "git object is not signed"),
        (&server, &plain, &[pgp], "git object is not signed"),
        (&server, "signed", &[other], "signature made by unknown entity"),
        (&server, "signed", &[ssh], "failed to read armored public key"),
        (&server, "signed", &[pgp, require], "signed tag required but no signed tag found"),
        (&server, "signed", &[require, ignore], "signed tag required but no signed tag found"),
        (&server, "signed", &[("git.sig.rejectexpired", "true")], "failed to read armored public key"),
        (&server, "signed-tag", &[pgp, require], "failed to parse ssh public key"),
        (&server, "plain-tag", &[pgp, require], "git object is not signed"),
        (&server, "signed", &[("git.sig.pubkeys", "x")], "such a signature cannot be verified"),
        (&server, "signed", &[("http.sig.pubkey", "x")], "such a signature cannot be verified"),
        (&liar, "signed-tag", &[ssh, require], "as the repository says"),
    ] {
        let error = read(&host.host, reference, attrs).unwrap_err();
        assert!(error.contains(reason), "{reference} {attrs:?}: {error}");
    }
    // Clients that verify for themselves get the objects, and what is to be verified is before they are told.
    let gateway = api.gateway("asked");
    let ask = |reference: &str, attrs: &[(&str, &str)]| {
        let request = ResolveSourceMetaRequest {
            source: Some(op(&server.host, reference, attrs)),
            git: Some(ResolveSourceGitRequest { return_object: true }),
            ..ResolveSourceMetaRequest::default()
        };
        let (mut bridge, request) = (api.bridge(), gateway.request(request));
        api.runtime.block_on(async move { bridge.resolve_source_meta(request).await })
    };
    for reference in ["signed-tag", &tag] {
        let told = ask(reference, &[ssh]).unwrap().into_inner().git.unwrap();
        assert_eq!((told.checksum, told.commit_checksum), (tag.clone(), id("signed-tag^{}")), "{reference}");
        assert_eq!(told.tag_object, vector("ssh.tag"), "{reference}");
        assert_eq!(told.commit_object, vector("ssh.commit"), "{reference}");
    }
    let told = ask(&commit, &[]).unwrap().into_inner().git.unwrap();
    assert_eq!((told.checksum, told.commit_checksum.as_str()), (commit, ""));
    let error = ask("master", &[pgp]).unwrap_err();
    assert!(error.message().contains("git object is not signed"), "{error}");
    gateway.end();
}
