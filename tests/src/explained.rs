//! What `rbuild explain` tells, for suites that check it.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::Scene;

/// What is told of the last build.
///
/// # Panics
/// When nothing is.
pub fn told(scene: &Scene) -> Value {
    serde_json::from_str(&scene.run(&["explain", "--format", "json"]).ok().stdout).expect("an explanation")
}

/// What is told of the steps of the last build that ran: the end of the name, and the causes.
///
/// # Panics
/// When it is no explanation.
pub fn causes(told: &Value) -> Vec<(String, Vec<Value>)> {
    let steps = told["steps"].as_array().expect("an explanation");
    let ran = |step: &&Value| {
        ["ran", "failed", "canceled"].contains(&step["outcome"].as_str().expect("an explanation"))
    };
    let text = |step: &Value| {
        let name = step["name"].as_str().expect("an explanation");
        name.split_once("] ").map_or(name, |(_, text)| text).to_owned()
    };
    let causes = |step: &Value| step["causes"].as_array().cloned().unwrap_or_default();
    steps.iter().filter(ran).map(|step| (text(step), causes(step))).collect()
}

/// Checks that of the last build just these steps ran, each for just these causes; what follows names the step that it follows by
/// its text.
///
/// # Panics
/// When it is otherwise.
#[track_caller]
pub fn check(scene: &Scene, expected: &[(&str, Value)]) {
    let told = told(scene);
    let mut found = causes(&told);
    for cause in found.iter_mut().flat_map(|(_, causes)| causes) {
        if cause["kind"] == "follows" {
            let name = told["steps"][cause["step"].as_u64().expect("an explanation") as usize]["name"]
                .as_str()
                .expect("an explanation");
            cause["step"] = name.split_once("] ").map_or(name, |(_, text)| text).into();
        }
        if let Some(at_ms) = cause["at_ms"].as_u64() {
            let at = SystemTime::UNIX_EPOCH + Duration::from_millis(at_ms);
            assert!(at.elapsed().is_ok_and(|ago| ago < Duration::from_hours(1)), "{cause}");
        }
        // Digests and times are not the same each time.
        for name in ["at_ms", "old", "new"] {
            if let Some(value) = cause.get_mut(name)
                && (name == "at_ms" || value.as_str().expect("an explanation").contains(':'))
            {
                *value = "…".into();
            }
        }
    }
    let expected: Vec<(String, Vec<Value>)> = expected
        .iter()
        .map(|(name, causes)| {
            ((*name).to_owned(), causes.as_array().cloned().unwrap_or(vec![causes.clone()]))
        })
        .collect();
    assert_eq!(found, expected, "{told:#}");
}

/// That a step ran because of another one, which is named by its text.
pub fn follows(step: &str) -> Value {
    json!({"kind": "follows", "step": step})
}
