//! A frontend as BuildKit runs them from images: it speaks LLBBridge over its stdin and stdout. What it does is chosen by the
//! build argument `MODE`; tests put it into an image.

#![expect(clippy::expect_used, reason = "a test's program fails by panicking")]

use std::collections::BTreeMap;

use hyper_util::rt::TokioIo;
use prost::Message as _;
use proto::gateway::llb_bridge_client::LlbBridgeClient;
use proto::gateway::result::Result as Refs;
use proto::gateway::{InputsRequest, PingRequest, Ref, Result as WireResult, ReturnRequest, SolveRequest};
use tests::llb::Llb;
use tonic::transport::{Channel, Endpoint};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let options = options();
    let mode = options.get("build-arg:MODE").cloned().unwrap_or_default();
    match mode.as_str() {
        "die" => {
            eprintln!("the last words");
            std::process::exit(3);
        }
        "silent" => return,
        _ => {}
    }
    let mut bridge = connect().await;
    let pong = bridge.ping(PingRequest {}).await.expect("a pong").into_inner();
    assert!(!pong.llb_caps.is_empty() && pong.workers.len() == 1);
    let request = match answer(&mut bridge, &mode, options).await {
        Ok(result) => ReturnRequest { result: Some(result), error: None },
        Err(status) => ReturnRequest { result: None, error: Some(whole(&status)) },
    };
    bridge.r#return(request).await.expect("returned");
}

/// The options of the build, by name.
fn options() -> BTreeMap<String, String> {
    let all = std::env::vars().filter(|(name, _)| name.starts_with("BUILDKIT_FRONTEND_OPT_"));
    all.filter_map(|(_, option)| option.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))).collect()
}

async fn connect() -> LlbBridgeClient<Channel> {
    let stdio = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
    let mut stdio = Some(TokioIo::new(stdio));
    let connector = tower::service_fn(move |_| {
        let stdio = stdio.take().ok_or_else(|| std::io::Error::other("there is one connection only"));
        std::future::ready(stdio)
    });
    let channel = Endpoint::from_static("http://frontend").connect_with_connector(connector).await;
    LlbBridgeClient::new(channel.expect("a connection"))
}

async fn answer(
    bridge: &mut LlbBridgeClient<Channel>,
    mode: &str,
    options: BTreeMap<String, String>,
) -> Result<WireResult, tonic::Status> {
    match mode {
        "text" => Ok(WireResult {
            result: Some(Refs::Ref(Ref::default())),
            metadata: [("result.txt".to_owned(), "an answer\n".into())].into(),
            ..WireResult::default()
        }),
        "fail" => Err(tonic::Status::aborted("it did not please")),
        // Another frontend's result, handed on as it is; its errors, too.
        "forward" => {
            let request = SolveRequest {
                frontend: "dockerfile.v0".to_owned(),
                frontend_opt: options,
                allow_result_return: true,
                allow_result_array_ref: true,
                ..SolveRequest::default()
            };
            Ok(bridge.solve(request).await?.into_inner().result.expect("a result"))
        }
        _ => {
            let inputs = bridge.inputs(InputsRequest {}).await?.into_inner().definitions;
            let mut text = String::new();
            for (name, value) in &options {
                text += &format!("{name}={value}\n");
            }
            for name in ["BUILDKIT_SESSION_ID", "BUILDKIT_WORKERS", "BUILDKIT_EXPORTEDPRODUCT", "OF_IMAGE"] {
                text += &format!("{name}={}\n", std::env::var(name).unwrap_or_default());
            }
            text += &format!("inputs={:?}\n", inputs.keys().collect::<Vec<_>>());
            text += &format!("cwd={}\n", std::env::current_dir().expect("a directory").display());
            let own = fs_err::read("/run/config/buildkit/metadata/frontend.bin").expect("its own definition");
            let own = proto::pb::Definition::decode(&own[..]).expect("a definition");
            text += &format!("own={}\n", own.def.len());
            let links = fs_err::read_dir("/sys/class/net").expect("links").flatten();
            text += &format!("links={:?}\n", links.map(|link| link.file_name()).collect::<Vec<_>>());
            let mut llb = Llb::new();
            let made = llb.file(None, "/seen", &text);
            let request = SolveRequest {
                definition: Some(llb.definition(&made)),
                allow_result_return: true,
                allow_result_array_ref: true,
                ..SolveRequest::default()
            };
            Ok(bridge.solve(request).await?.into_inner().result.expect("a result"))
        }
    }
}

/// A status with all its details.
fn whole(status: &tonic::Status) -> proto::rpc::Status {
    let full = proto::rpc::Status::decode(status.details()).ok().filter(|full| full.code != 0);
    full.unwrap_or_else(|| proto::rpc::Status {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}
