//! The texts and JSON of `--call`.

use frontend::lint::{CheckOptions, Linter, check_syntax};
use frontend::parse::parse;
use frontend::span::{Lines, SourceFile};
use frontend::subrequest::{self, Outline, OutlineArg, OutlineMount};

#[test]
fn targets() {
    let text = "# base has <tools>\nFROM --platform=$P a AS base\nFROM base\nFROM scratch AS last\n";
    let (document, _) = parse("Dockerfile", text.as_bytes());
    let answer = subrequest::targets(&document);
    insta::assert_snapshot!(answer.text, @r"
    TARGET         DESCRIPTION
    base           has <tools>
                   
    last (default)
    ");
    insta::assert_snapshot!(answer.json, @r#"
    {
      "targets": [
        {
          "name": "base",
          "description": "has \u003ctools\u003e",
          "base": "a",
          "platform": "$P",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 2
                },
                "end": {
                  "line": 2
                }
              }
            ]
          }
        },
        {
          "base": "base",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 3
                },
                "end": {
                  "line": 3
                }
              }
            ]
          }
        },
        {
          "name": "last",
          "default": true,
          "base": "scratch",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 4
                },
                "end": {
                  "line": 4
                }
              }
            ]
          }
        }
      ],
      "sources": [
        "IyBiYXNlIGhhcyA8dG9vbHM+CkZST00gLS1wbGF0Zm9ybT0kUCBhIEFTIGJhc2UKRlJPTSBiYXNlCkZST00gc2NyYXRjaCBBUyBsYXN0Cg=="
      ]
    }
    "#);
}

#[test]
fn outline() {
    let source = SourceFile::new("Dockerfile", b"FROM a\n");
    let arg = |name: &str, value: &str, line: u32| OutlineArg {
        name: name.to_owned(),
        description: if value.is_empty() { String::new() } else { "says what".to_owned() },
        value: value.to_owned(),
        lines: Lines::single(line),
    };
    let mount = |name: &str, required: bool| OutlineMount {
        name: name.to_owned(),
        required,
        lines: Lines::new(4, 5),
    };
    let outline = Outline {
        name: "last".to_owned(),
        description: "has all".to_owned(),
        args: vec![arg("LATE", "", 9), arg("EARLY", "value", 2)],
        secrets: vec![mount("token", true), mount("other", false)],
        ssh: vec![mount("default", false)],
    };
    let answer = outline.answer(&source);
    insta::assert_snapshot!(answer.text, @r"
    TARGET:      last
    DESCRIPTION: has all

    BUILD ARG   VALUE   DESCRIPTION
    EARLY       value   says what
    LATE                

    SECRET   REQUIRED
    token    true
    other    

    SSH       REQUIRED
    default
    ");
    insta::assert_snapshot!(answer.json, @r#"
    {
      "name": "last",
      "description": "has all",
      "args": [
        {
          "name": "EARLY",
          "description": "says what",
          "value": "value",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 2
                },
                "end": {
                  "line": 2
                }
              }
            ]
          }
        },
        {
          "name": "LATE",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 9
                },
                "end": {
                  "line": 9
                }
              }
            ]
          }
        }
      ],
      "secrets": [
        {
          "name": "token",
          "required": true,
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 4
                },
                "end": {
                  "line": 4
                }
              },
              {
                "start": {
                  "line": 5
                },
                "end": {
                  "line": 5
                }
              }
            ]
          }
        },
        {
          "name": "other",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 4
                },
                "end": {
                  "line": 4
                }
              },
              {
                "start": {
                  "line": 5
                },
                "end": {
                  "line": 5
                }
              }
            ]
          }
        }
      ],
      "ssh": [
        {
          "name": "default",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 4
                },
                "end": {
                  "line": 4
                }
              },
              {
                "start": {
                  "line": 5
                },
                "end": {
                  "line": 5
                }
              }
            ]
          }
        }
      ],
      "sources": [
        "RlJPTSBhCg=="
      ]
    }
    "#);
    assert_eq!(Outline::default().answer(&source).text, "");
}

#[test]
fn lint() {
    let (document, _) = parse("Dockerfile", b"FROM a AS X\nMAINTAINER me\n");
    let mut linter = Linter::new(CheckOptions::default());
    check_syntax(&document, &mut linter);
    let answer = subrequest::lint(linter.findings(), None, &document.source);
    insta::assert_snapshot!(answer.text, @r"
    WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/
    Stage name 'X' should be lowercase
    Dockerfile:1
    --------------------
       1 | >>> FROM a AS X
       2 |     MAINTAINER me
       3 |     
    --------------------

    WARNING: MaintainerDeprecated - https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/
    Maintainer instruction is deprecated in favor of using label
    Dockerfile:2
    --------------------
       1 |     FROM a AS X
       2 | >>> MAINTAINER me
       3 |     
    --------------------
    ");
    insta::assert_snapshot!(answer.json, @r#"
    {
      "warnings": [
        {
          "ruleName": "StageNameCasing",
          "description": "Stage names should be lowercase",
          "url": "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/",
          "detail": "Stage name 'X' should be lowercase",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 1
                },
                "end": {
                  "line": 1
                }
              }
            ]
          }
        },
        {
          "ruleName": "MaintainerDeprecated",
          "description": "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
          "url": "https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/",
          "detail": "Maintainer instruction is deprecated in favor of using label",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 2
                },
                "end": {
                  "line": 2
                }
              }
            ]
          }
        }
      ],
      "sources": [
        {
          "filename": "Dockerfile",
          "data": "RlJPTSBhIEFTIFgKTUFJTlRBSU5FUiBtZQo=",
          "language": "Dockerfile"
        }
      ]
    }
    "#);
    assert_eq!(answer.status, Some(1));
    assert_eq!(subrequest::lint(&[], None, &document.source).status, Some(0));
}

#[test]
fn lint_that_meets_an_error() {
    let (document, diagnostics) = parse("Dockerfile", b"FROM a\nCOPPY\n");
    let answer = subrequest::lint(&[], diagnostics.first(), &document.source);
    assert_eq!(answer.text, "", "BuildKit tells it in the JSON only");
    assert_eq!(answer.status, Some(1));
    let json: serde_json::Value = serde_json::from_str(&answer.json).unwrap();
    assert_eq!(
        json["buildError"]["message"],
        "dockerfile parse error on line 2: unknown instruction: COPPY (did you mean COPY?)"
    );
    let (document, diagnostics) = parse("Dockerfile", b"FROM a\nENV A\n");
    let answer = subrequest::lint(&[], diagnostics.first(), &document.source);
    let json: serde_json::Value = serde_json::from_str(&answer.json).unwrap();
    assert_eq!(json["buildError"]["message"], "ENV must have two arguments");
}

#[test]
fn findings_of_a_line_stay_in_the_order_of_checking() {
    let document = parse("Dockerfile", b"FROM a AS b\nMAINTAINER me\nFROM a AS Scratch\n").0;
    let mut linter = Linter::default();
    check_syntax(&document, &mut linter);
    let findings = linter.into_findings();
    let answer = subrequest::lint(&findings, None, &document.source);
    let json: serde_json::Value = serde_json::from_str(&answer.json).unwrap();
    let rules: Vec<&str> =
        json["warnings"].as_array().unwrap().iter().filter_map(|w| w["ruleName"].as_str()).collect();
    let found: Vec<&str> = findings.iter().map(|finding| finding.rule.name()).collect();
    assert_eq!(rules, found, "the JSON does not sort");
    let told: Vec<&str> = answer.text.lines().filter_map(|line| line.strip_prefix("WARNING: ")).collect();
    let told: Vec<&str> = told.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(told, ["MaintainerDeprecated", "StageNameCasing", "ReservedStageName"], "the text is by line");
}

#[test]
fn describe() {
    insta::assert_snapshot!(subrequest::describe().text, @r"
    NAME                 VERSION DESCRIPTION
    outline              1.0.0   List all parameters current build target supports
    targets              1.0.0   List all targets current build supports
    subrequests.describe 1.0.0   List available subrequest types
    ");
}
