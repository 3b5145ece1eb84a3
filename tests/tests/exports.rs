//! What leaves the daemon besides the image itself: statements about it, times, and the files of several platforms.

#[path = "../../cache/tests/registry/fake.rs"]
#[expect(dead_code, reason = "made for the tests of the registry client, which need more of it")]
mod fake;

use std::os::unix::fs::MetadataExt;

use fake::{Fake, Reply};
use proto::control::Exporter;
use proto::gateway::{Attestation, AttestationKind, Attestations, Ref, ReturnRequest, SolveRequest};
use proto::pb::file_action::Action;
use proto::pb::{Definition, FileActionMkDir, FileActionMkFile};
use serde_json::{Value, json};
use tests::archive::{blob, entries, target};
use tests::llb::Llb;
use tests::{Api, Scene, ready};

#[test]
fn provenance() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("Dockerfile", "FROM base\nCOPY f /f\nRUN echo ok > /g\n").write("f", "f");
    let attest = |options: &str| format!("BUILDKIT_ATTEST_PROVENANCE={options}");
    let max = attest("mode=max");
    let args = ["-o", "type=oci,dest=../o.tar", "--provenance=mode=max", "--build-arg", "A=b"];
    let told = scene.build(&args).ok().stderr;
    let all = entries(&scene.path("o.tar"));
    let index = target(&all);
    assert!(told.contains("exporting manifest list sha256:"), "{told}");
    let [image, attested] = &index["manifests"].as_array().unwrap()[..] else { panic!("{index}") };
    assert_eq!(attested["annotations"]["vnd.docker.reference.type"], "attestation-manifest");
    assert_eq!(attested["annotations"]["vnd.docker.reference.digest"], image["digest"]);
    assert_eq!(attested["platform"]["os"], "unknown");
    let manifest = blob(&all, attested);
    assert_eq!(manifest["artifactType"], "application/vnd.docker.attestation.manifest.v1+json");
    assert_eq!(manifest["subject"]["digest"], image["digest"]);
    let layer = manifest["layers"][0].clone();
    let statement = blob(&all, &layer);
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    assert_eq!(layer["annotations"]["in-toto.io/predicate-type"], statement["predicateType"]);
    let told = &statement["predicate"]["buildDefinition"];
    let base = told["resolvedDependencies"][0]["uri"].as_str().unwrap();
    assert!(base.starts_with("pkg:docker/base@latest?platform=linux%2F"), "{base}");
    let request = &told["externalParameters"]["request"];
    assert_eq!(request["args"]["build-arg:A"], "b");
    assert_eq!(request["locals"], serde_json::json!([{ "name": "context" }, { "name": "dockerfile" }]));
    let metadata = &statement["predicate"]["runDetails"]["metadata"]["buildkit_metadata"];
    assert_eq!(metadata["source"]["infos"][0]["filename"], "Dockerfile");
    let steps = told["internalParameters"]["buildConfig"]["llbDefinition"].as_array().unwrap().len();
    assert_eq!(steps, 5, "image, context, COPY, RUN, result");
    let layers = metadata["layers"].as_object().unwrap();
    assert!(layers.values().all(|chains| chains.as_array().unwrap().len() == 1), "{layers:?}");
    assert_eq!(layers.len(), 3, "of image, COPY, RUN: {layers:?}");

    let (old, inline) = (attest("mode=min,version=v0.2"), attest("inline-only=true"));
    scene.build(&["-o", "type=local,dest=../l", "--build-arg", &old]).ok();
    let text = fs_err::read(scene.path("l/provenance.json")).unwrap();
    let statement: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v0.2");
    assert!(statement["subject"].as_array().unwrap().iter().any(|subject| subject["name"] == "g"));
    scene.build(&["-o", "type=local,dest=../i", "--build-arg", &inline]).ok();
    assert!(!scene.path("i/provenance.json").exists());

    // What is for images only goes with those that are pushed; an archive has it when it is asked to.
    let of_docker = |options: &str| {
        let output = format!("type=docker,dest=../d.tar{options}");
        scene.build(&["-o", &output, "--build-arg", &inline]).ok();
        entries(&scene.path("d.tar"))
    };
    let plain = of_docker("");
    assert_eq!(target(&plain)["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
    let all = of_docker(",attestation-inline=true,oci-artifact=false");
    let attested = blob(&all, &target(&all)["manifests"][1]);
    assert_eq!(attested["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
    assert_eq!(blob(&all, &attested["config"])["os"], "unknown");
    assert!(all.contains_key("manifest.json"));

    let bad = attest("mode=medium");
    let out = scene.build(&["-o", "type=oci,dest=../x.tar", "--build-arg", &bad]).fails();
    assert!(out.stderr.contains("invalid mode \"medium\""), "{}", out.stderr);
    let types = ["-o", "type=oci,dest=../x.tar,oci-mediatypes=false", "--build-arg", &max];
    let out = scene.build(&types).fails();
    assert!(out.stderr.contains("cannot export attestations with"), "{}", out.stderr);
}

/// A scanner sees the result, and what else it is to cover; what it writes becomes statements beside the image.
#[test]
fn what_is_in_an_image() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let scan = "set -e; cd /run/src\n\
        files=$(find . -type f -not -path '*/bin/*' -not -path '*/etc/*' | sort | tr '\\n' ' ')\n\
        for name in sbom sbom-a; do\n\
        echo '{\"predicateType\":\"https://spdx.dev/Document\",\"subject\":[],\"predicate\":{\"spdxVersion\":\"SPDX-2.3\",\n\
        \"name\":\"'$name $BUILDKIT_SCAN_x $BUILDKIT_SCAN_SOURCE $BUILDKIT_SCAN_SOURCE_EXTRAS $files'\",\n\
        \"files\":[{\"fileName\":\"/g\"},{\"fileName\":\"/no\"},{\"fileName\":\"/f\",\"comment\":\"mine\"}]}}' >$BUILDKIT_SCAN_DESTINATION$name.json\n\
        done\n";
    let scanner = "FROM base\nCOPY scan.sh /\nCMD [\"/bin/sh\", \"/scan.sh\"]\n";
    scene.write("scan.sh", scan).dockerfile(scanner, &["-t", "scanner"]).ok();
    scene.write("f", "f");
    let text = "FROM base AS a\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN echo a >/a\nFROM scratch\nCOPY f /f\nCOPY --from=a /a /g\n";
    let sbom = "--sbom=generator=scanner,x=told";
    scene.dockerfile(text, &["-o", "type=oci,dest=../o.tar", sbom, "--provenance=mode=min"]).ok();
    let all = entries(&scene.path("o.tar"));
    let index = target(&all);
    let image = blob(&all, &index["manifests"][0]);
    let attested = blob(&all, &index["manifests"][1]);
    let statements: Vec<Value> =
        attested["layers"].as_array().unwrap().iter().map(|layer| blob(&all, layer)).collect();
    let [core, stage, provenance] = &statements[..] else { panic!("{statements:#?}") };
    assert_eq!(provenance["predicateType"], "https://slsa.dev/provenance/v1");
    assert_eq!(core["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(core["predicateType"], "https://spdx.dev/Document");
    let seen = core["predicate"]["name"].as_str().unwrap();
    let want = "sbom told /run/src/core/sbom /run/src/extras ./core/sbom/f ./core/sbom/g ./extras/sbom-a/a";
    assert_eq!(seen.trim(), want);
    assert!(stage["predicate"]["name"].as_str().unwrap().starts_with("sbom-a "));
    // Which layers have the files is known here only.
    let files = &core["predicate"]["files"];
    let layer = image["layers"][1]["digest"].as_str().unwrap();
    assert_eq!(files[0]["comment"], format!("layerID: {layer}"));
    assert_eq!((&files[1]["comment"], &files[2]["comment"]), (&Value::Null, &json!("mine")));
    assert_eq!(stage["predicate"]["files"][0]["comment"], Value::Null);
    let tools = core["predicate"]["creationInfo"]["creators"].as_array().unwrap();
    assert!(tools[0].as_str().unwrap().starts_with("Tool: buildkit-"), "{tools:?}");

    scene.build(&["-o", "type=local,dest=../l", sbom]).ok();
    let text = fs_err::read(scene.path("l/sbom.json")).unwrap();
    let statement: Value = serde_json::from_slice(&text).unwrap();
    assert!(statement["subject"].as_array().unwrap().iter().any(|subject| subject["name"] == "g"));
    assert!(scene.path("l/sbom-a.json").exists());

    // A scanner that fails, that is none, and that writes nonsense.
    let fails = |dockerfile: &str, says: &str| {
        scene.dockerfile(dockerfile, &["-t", "scanner"]).ok();
        scene.write("Dockerfile", "FROM scratch\nCOPY f /f\n");
        let out =
            scene.build(&["-o", "type=oci,dest=../x.tar", "--attest=type=sbom,generator=scanner"]).fails();
        assert!(out.stderr.contains(says), "{says}: {}", out.stderr);
    };
    fails("FROM base\nCMD [\"/bin/false\"]\n", "generating sbom using docker.io/library/scanner:latest");
    fails("FROM base\nCMD []\n", "scanner docker.io/library/scanner:latest does not have cmd");
    fails(
        "FROM base\nCMD [\"/bin/sh\", \"-c\", \"echo { >/run/out/a\"]\n",
        "cannot decode in-toto statement",
    );
}

/// Statements of clients that are their own frontends.
#[test]
fn statements_of_frontends() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let mut llb = Llb::new();
    let files = llb.file(None, "/f", "f");
    let files = llb.definition(&files);
    let statement = r#"{"predicateType":"https://example.com/b","predicate":{"b":1},"subject":[{"name":"n","digest":{"sha512":"cd"}}]}"#;
    let said = llb.file(None, "/p.json", r#"{"a":1}"#);
    let said = llb.actions(
        Some(&said),
        vec![
            Action::Mkdir(FileActionMkDir {
                path: "/d".to_owned(),
                mode: 0o755,
                ..FileActionMkDir::default()
            }),
            Action::Mkfile(FileActionMkFile {
                path: "/d/s.json".to_owned(),
                mode: 0o644,
                data: statement.into(),
                ..FileActionMkFile::default()
            }),
        ],
    );
    let said = llb.definition(&said);
    let build = |name: &str, claims: &[(AttestationKind, &str, &str)]| {
        let exporter =
            Exporter { r#type: "image".to_owned(), attrs: [("name".to_owned(), name.to_owned())].into() };
        let mut gateway = api.gateway_for(proto::control::SolveRequest {
            r#ref: name.to_owned(),
            exporters: vec![exporter],
            ..proto::control::SolveRequest::default()
        });
        let reference = |definition: &Definition| {
            Some(Ref { id: gateway.definition(definition.clone()).unwrap(), def: None })
        };
        let attestation = |(kind, path, predicate_type): &(AttestationKind, &str, &str)| Attestation {
            kind: (*kind).into(),
            r#ref: reference(&said),
            path: (*path).to_owned(),
            in_toto_predicate_type: (*predicate_type).to_owned(),
            ..Attestation::default()
        };
        let platforms = json!({ "Platforms": [
            { "ID": "p", "Platform": { "architecture": "amd64", "os": "linux" } },
        ] });
        let attestations = Attestations { attestation: claims.iter().map(attestation).collect() };
        let result = proto::gateway::Result {
            result: reference(&files).map(proto::gateway::result::Result::Ref),
            metadata: [("refs.platforms".to_owned(), platforms.to_string().into())].into(),
            attestations: [("p".to_owned(), attestations)].into(),
        };
        gateway.returns(ReturnRequest { result: Some(result), error: None })
    };
    let (predicate, bundle) = (AttestationKind::InToto, AttestationKind::Bundle);
    let both = [(predicate, "/p.json", "https://example.com/a"), (bundle, "d", "")];
    let made = build("both:1", &both).unwrap();
    let stored = |digest: &str| -> Value {
        let hex = digest.trim_start_matches("sha256:");
        let path = scene.daemon.root().join("blobs/sha256").join(&hex[..2]).join(hex);
        serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
    };
    let index = stored(&made.exporter_response["containerimage.digest"]);
    let attested = stored(index["manifests"][1]["digest"].as_str().unwrap());
    let [a, b] = &attested["layers"].as_array().unwrap()[..] else { panic!("{attested:#}") };
    assert_eq!(b["annotations"]["in-toto.io/predicate-type"], "https://example.com/b");
    let (a, b) = (stored(a["digest"].as_str().unwrap()), stored(b["digest"].as_str().unwrap()));
    assert_eq!((&a["predicateType"], &a["predicate"]["a"]), (&json!("https://example.com/a"), &json!(1)));
    assert!(a["subject"][0]["name"].as_str().unwrap().starts_with("pkg:docker/both@1?platform="), "{a:#}");
    assert_eq!(b["subject"], json!([{ "name": "n", "digest": { "sha512": "cd" } }]));

    for (claim, says) in [
        ((predicate, "", "x"), "attestation does not have set path"),
        ((predicate, "/missing", "x"), "no such file or directory"),
        ((predicate, "/p.json", "https://slsa.dev/provenance/v1"), "frontend may not set provenance"),
        ((bundle, "/d", "x"), "bundle entry https://example.com/b does not match required predicate type x"),
        ((bundle, "/", ""), "cannot read in-toto attestation"),
    ] {
        let error = build("bad:1", &[claim]).unwrap_err();
        assert!(error.message().contains(says), "{says}: {error}");
    }
}

#[test]
fn rewritten_times() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let text = "FROM base\nRUN echo ok > /f && mkdir /d\nCOPY Dockerfile /d/\n";
    let build = |name: &str| {
        let output = format!("type=oci,dest=../{name},rewrite-timestamp=true");
        let args = ["--no-cache", "-o", &output, "--build-arg", "SOURCE_DATE_EPOCH=1700000000"];
        scene.dockerfile(text, &args).ok();
        fs_err::read(scene.path(name)).unwrap()
    };
    let (first, second) = (build("a.tar"), build("b.tar"));
    assert!(first == second, "the archives differ");
    let all = entries(&scene.path("a.tar"));
    let manifest = target(&all);
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers[0].get("annotations"), None, "the base image's layer stays");
    for layer in &layers[1..] {
        assert_eq!(layer["annotations"]["buildkit/rewritten-timestamp"], "1700000000");
        let name = layer["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
        let mut tar = tar::Archive::new(flate2::read::MultiGzDecoder::new(&all[&name][..]));
        for entry in tar.entries().unwrap() {
            assert!(entry.unwrap().header().mtime().unwrap() <= 1_700_000_000);
        }
    }
    // In the image store, too: the same image, and steps that use it see the times.
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000", "-o"];
    let output = "type=image,name=x,rewrite-timestamp=true,oci-mediatypes=true";
    scene.dockerfile(text, &[&epoch[..], &[output, "--metadata-file", "../m.json"]].concat()).ok();
    let told: Value = serde_json::from_slice(&fs_err::read(scene.path("m.json")).unwrap()).unwrap();
    assert_eq!(told["containerimage.config.digest"], manifest["config"]["digest"]);
    let out = scene.dockerfile("FROM x\nRUN stat -c '%Y %n' /f /d/Dockerfile\n", &[]).ok();
    for file in ["1700000000 /f", "1700000000 /d/Dockerfile"] {
        assert!(out.stderr.contains(file), "no `{file}` in {}", out.stderr);
    }
    let out = scene.dockerfile(text, &["-o", "type=oci,dest=../x.tar,source-date-epoch=today"]);
    assert!(out.fails().stderr.contains("source-date-epoch"));
}

#[test]
fn files_of_several_platforms() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY f /${TARGETARCH}\n").write("f", "f");
    let build = |output: &str| {
        let attest = "BUILDKIT_ATTEST_PROVENANCE=";
        let args = ["--platform", "linux/amd64,linux/arm64", "-o", output, "--build-arg", attest];
        scene.build(&args).ok();
    };
    build("type=local,dest=../split");
    build("type=local,dest=../flat,platform-split=false,attestation-prefix=my-");
    build("type=local,dest=../clean,platform-split=false,mode=delete");
    build("type=tar,dest=../o.tar");
    for arch in ["amd64", "arm64"] {
        let dir = scene.path("split").join(format!("linux_{arch}"));
        assert_eq!(fs_err::read_to_string(dir.join(arch)).unwrap(), "f");
        assert!(dir.join("provenance.json").exists());
        assert_eq!(fs_err::read_to_string(scene.path("flat").join(arch)).unwrap(), "f");
        assert!(scene.path("flat").join(format!("my-provenance.linux_{arch}.json")).exists());
        assert_eq!(fs_err::read_to_string(scene.path("clean").join(arch)).unwrap(), "f");
        assert_eq!(entries(&scene.path("o.tar"))[&format!("linux_{arch}/{arch}")], b"f");
    }
    let same = "FROM scratch\nCOPY f /\n";
    let output =
        ["--platform", "linux/amd64,linux/arm64", "-o", "type=local,dest=../same,platform-split=false"];
    let out = scene.dockerfile(same, &output).fails();
    let text = "cannot overwrite f from linux/amd64 with linux/arm64 when split option is disabled";
    assert!(out.stderr.contains(text), "{}", out.stderr);

    // What both stand on is looked up once.
    let shared = "FROM --platform=linux/amd64 base AS tools\nFROM scratch\nCOPY --from=tools /bin/sh /\n";
    let out =
        scene.dockerfile(shared, &["--platform", "linux/amd64,linux/arm64", "-o", "type=oci,dest=../o"]).ok();
    let looked_up = out.stderr.lines().filter(|line| line.contains("] load metadata for ")).count();
    assert_eq!(looked_up, 1, "{}", out.stderr);
}

#[test]
fn frontends_get_their_directories_from_others() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let gateway = api.gateway("inputs");
    let mut llb = Llb::new();
    let dockerfile = llb.file(None, "/Dockerfile", "FROM scratch\nCOPY f /g\n");
    let context = llb.file(None, "/f", "text");
    let solve = |dockerfile: Definition, context: Definition| {
        let inputs = [("dockerfile".to_owned(), dockerfile), ("context".to_owned(), context)];
        gateway.solve(SolveRequest {
            frontend: "dockerfile.v0".to_owned(),
            frontend_inputs: inputs.into(),
            evaluate: true,
            ..SolveRequest::default()
        })
    };
    let result = solve(llb.definition(&dockerfile), llb.definition(&context)).unwrap();
    assert!(result.metadata.contains_key("containerimage.config"));
    let nothing = solve(llb.definition(&dockerfile), Definition::default()).unwrap_err();
    assert!(nothing.message().contains("invalid nil input definition"), "{nothing}");
    gateway.end();
}

#[test]
fn times_of_sources() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mtime(1_500_000_000);
    header.set_size(0);
    tar.append_data(&mut header, "f", std::io::empty()).unwrap();
    let archive = tar.into_inner().unwrap();
    let server = Fake::start(move |_| Reply::ok(archive.clone()));
    let url = format!("http://{}/src.tar", server.host);
    let text = format!(
        "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD {url} /\nFROM scratch\nCOPY Dockerfile /\n"
    );
    scene.dockerfile(&text, &["-o", "type=oci,dest=../o.tar"]).ok();
    let all = entries(&scene.path("o.tar"));
    assert_eq!(blob(&all, &target(&all)["config"])["created"], "2017-07-14T02:40:00Z");
}

#[test]
fn hard_links_stay_links() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let text =
        "FROM base\nRUN mkdir /d && echo x > /d/a && ln /d/a /d/b\nFROM scratch\nCOPY --from=0 /d /d\n";
    scene.dockerfile(text, &["-o", "type=local,dest=../out"]).ok();
    let inode = |name: &str| fs_err::metadata(scene.path("out/d").join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("b"));
    assert_eq!(fs_err::read_to_string(scene.path("out/d/b")).unwrap(), "x\n");
}

#[test]
fn annotations_at_each_level() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let file = scene.path("o.tar");
    let output = format!("-otype=oci,dest={},oci-mediatypes=false", file.display());
    let text = "FROM base\nRUN echo x > /x\n";
    let given = ["--annotation", "m=1", "--annotation", "manifest-descriptor:d=2"];
    scene.dockerfile(text, &[&[&*output][..], &given].concat()).ok();
    let all = entries(&file);
    let index: Value = serde_json::from_slice(&all["index.json"]).unwrap();
    assert_eq!(index["manifests"][0]["annotations"]["d"], "2");
    let manifest = target(&all);
    assert_eq!(manifest["annotations"], json!({"m": "1"}));
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json", "Docker's type has none");

    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    let given = ["--annotation", "index,manifest[linux/arm64]:k=v", "--annotation", "index-descriptor:n=3"];
    let scratch = "FROM scratch\nCOPY Dockerfile /\n";
    scene.dockerfile(scratch, &[&[&*output][..], &platforms, &given].concat()).ok();
    let all = entries(&file);
    let top: Value = serde_json::from_slice(&all["index.json"]).unwrap();
    assert_eq!(top["manifests"][0]["annotations"]["n"], "3");
    let index = target(&all);
    assert_eq!(index["annotations"], json!({"k": "v"}));
    let of = |n: usize| blob(&all, &index["manifests"][n])["annotations"].clone();
    assert_eq!((of(0), of(1)), (Value::Null, json!({"k": "v"})));

    for (annotation, expected) in [
        ("index:k=v", "index annotations not supported for single platform export"),
        ("blob:k=v", "unknown annotation type \"blob\""),
        ("manifest[?]:k=v", "invalid annotation"),
    ] {
        let out = scene.dockerfile(text, &[&*output, "--annotation", annotation]).fails();
        assert!(out.stderr.contains(expected), "{annotation} wants {expected}:\n{}", out.stderr);
    }
}
