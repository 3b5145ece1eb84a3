//! A client that others wrote: bollard's, which plays the part of `docker buildx` with the Dockerfile frontend in the daemon. The
//! context goes up as an archive over the session, secrets and passwords are asked for there, and archives come back that way.

use std::collections::HashMap;
use std::path::Path;

use bollard::auth::DockerCredentials;
use bollard::grpc::build::{ImageBuildFrontendOptions, ImageBuildLoadInput, SecretSource};
use bollard::grpc::driver::buildkitd::{BuildkitDaemon, Endpoint};
use bollard::grpc::driver::{Export, Image, ImageExporterEnum};
use bollard::grpc::error::GrpcError;
use bollard::grpc::export::ImageExporterOutput;
use bollard::grpc::registry::ImageRegistryOutput;
use bollard_buildkit_proto::moby::buildkit::v1::CacheOptionsEntry;
use tests::archive::Image as Archive;
use tests::{Auth, Scene, ready};

const DOCKERFILE: &str = "FROM base\nARG WORD\nCOPY f /f\nRUN --mount=type=secret,id=s cat /run/secrets/s > /s && echo $WORD > /w\n";

/// The client, and what it runs on.
struct Stock {
    scene: Scene,
    runtime: tokio::runtime::Runtime,
}

impl Stock {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        Self { scene: Scene::new(), runtime }
    }

    fn driver(&self) -> BuildkitDaemon {
        let addr = self.scene.daemon.addr();
        BuildkitDaemon::new(Endpoint::from_shared(addr).unwrap())
    }

    /// An archive with the context.
    fn context(&self, dockerfile: &str) -> ImageBuildLoadInput {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, text) in [("Dockerfile", dockerfile), ("f", "of the context\n")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        ImageBuildLoadInput::Upload(tar.into_inner().unwrap().into())
    }

    fn options(&self) -> ImageBuildFrontendOptions {
        let secret = self.scene.path("secret");
        fs_err::write(&secret, "hush").unwrap();
        ImageBuildFrontendOptions::builder()
            .buildarg("WORD", "said")
            .set_secret("s", &SecretSource::File(secret))
            .build()
    }

    fn export(&self, dockerfile: &str, to: &Path) -> Result<(), GrpcError> {
        let request = ImageExporterOutput::builder("docker.io/library/app:1").dest(to);
        let (options, context) = (self.options(), self.context(dockerfile));
        let exported = self.driver().export(ImageExporterEnum::OCI(request), options, context, None, None);
        self.runtime.block_on(exported)
    }
}

#[test]
fn an_archive_of_an_uploaded_context() {
    if !ready() {
        return;
    }
    let stock = Stock::new();
    let to = stock.scene.path("o.tar");
    stock.export(DOCKERFILE, &to).unwrap();
    let archive = Archive::open(&to);
    for (file, text) in [("f", "of the context\n"), ("s", "hush"), ("w", "said\n")] {
        assert_eq!(archive.file(file), Some(text.as_bytes()), "{file}");
    }
}

#[test]
fn failures_reach_it() {
    if !ready() {
        return;
    }
    let stock = Stock::new();
    let to = stock.scene.path("o.tar");
    for (dockerfile, want) in [
        ("FROM base\nRUN exit 3\n", "exit code: 3"),
        ("FROM base\nRUNN true\n", "unknown instruction: RUNN"),
        ("FROM base\nCOPY none /\n", "\\\"/none\\\": not found"),
    ] {
        let error = stock.export(dockerfile, &to).unwrap_err();
        assert!(format!("{error:?}").contains(want), "{dockerfile}: {error:?}");
    }
}

#[test]
fn pushes_and_caches_with_a_password() {
    if !ready() {
        return;
    }
    let stock = Stock::new();
    let registry = stock.scene.registry(Auth::Basic);
    let host = registry.host().to_owned();
    let login = |password: &str| {
        let of = |text: &str| Some(text.to_owned());
        let login = DockerCredentials { username: of("user"), password: of(password), ..Default::default() };
        Some(HashMap::from([(host.as_str(), login)]))
    };
    let entry = |attrs: &[(&str, &str)]| CacheOptionsEntry {
        r#type: "registry".to_owned(),
        attrs: attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    };
    let cache = format!("{host}/cache:1");
    let text = "FROM base\nRUN cat /proc/sys/kernel/random/uuid > /u\n";
    let made = |options: ImageBuildFrontendOptions, name: &str| {
        let to = stock.scene.path(name);
        let request = ImageExporterEnum::OCI(ImageExporterOutput::builder("app").dest(&to));
        let exported = stock.driver().export(request, options, stock.context(text), login("geheim"), None);
        stock.runtime.block_on(exported).unwrap();
        Archive::open(&to).file("u").unwrap().to_owned()
    };
    let written = entry(&[("ref", &cache), ("mode", "max")]);
    let first = made(ImageBuildFrontendOptions::builder().cacheto(&written).build(), "1.tar");
    stock.scene.run(&["prune", "--all", "--force"]).ok();
    let read = entry(&[("ref", &cache)]);
    let second = made(ImageBuildFrontendOptions::builder().cachefrom(&read).build(), "2.tar");
    assert_eq!(first, second, "the step ran again");

    let push = |password: &str| {
        let output = ImageRegistryOutput::builder(&format!("{host}/app:1")).push(true).consume();
        let options = ImageBuildFrontendOptions::builder().build();
        let pushed = stock.driver().registry(output, options, stock.context(text), login(password), None);
        stock.runtime.block_on(pushed)
    };
    push("geheim").unwrap();
    let refused = format!("{:?}", push("falsch").unwrap_err());
    assert!(refused.contains("wrong user name or password"), "{refused}");
    stock.scene.run(&["inspect", &format!("{host}/app:1")]).fails();
}
