//! `--call subrequests.describe`: what can be asked.

use serde::Serialize;

use crate::subrequest::answer::{Answer, json};
use crate::subrequest::table::table;

/// A subrequest; lists that are absent are `null`, as Go has them.
#[derive(Serialize)]
struct Request {
    name: &'static str,
    version: &'static str,
    r#type: &'static str,
    description: &'static str,
    opts: Option<&'static [Named]>,
    inputs: Option<&'static [Named]>,
    metadata: Option<&'static [Named]>,
    refs: Option<&'static [Named]>,
}

#[derive(Serialize)]
struct Named {
    name: &'static str,
    description: &'static str,
}

const RESULTS: &[Named] =
    &[Named { name: "result.json", description: "" }, Named { name: "result.txt", description: "" }];

const TARGET: &[Named] = &[Named { name: "target", description: "Target build stage" }];

/// Those that BuildKit describes; lint works without being listed, there as here.
const REQUESTS: [Request; 3] = [
    request("frontend.outline", "List all parameters current build target supports", Some(TARGET)),
    request("frontend.targets", "List all targets current build supports", Some(&[])),
    request("frontend.subrequests.describe", "List available subrequest types", None),
];

const fn request(name: &'static str, description: &'static str, opts: Option<&'static [Named]>) -> Request {
    Request {
        name,
        version: "1.0.0",
        r#type: "rpc",
        description,
        opts,
        inputs: None,
        metadata: Some(RESULTS),
        refs: None,
    }
}

/// Lists the subrequests.
pub fn describe() -> Answer {
    let mut rows = vec![["NAME", "VERSION", "DESCRIPTION"]];
    let short = |request: &Request| request.name.trim_start_matches("frontend.");
    rows.extend(REQUESTS.iter().map(|request| [short(request), request.version, request.description]));
    Answer { text: table(&rows, 1), json: json(&REQUESTS), version: "1.0.0", status: None }
}
