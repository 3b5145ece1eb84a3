//! Findings of the rules that need only the syntax, and of those that lowering calls.

use std::collections::BTreeSet;

use frontend::ast::Command;
use frontend::lint::{self, CheckOptions, Linter, Rule, check_syntax, findings_before};
use frontend::parse::parse;
use frontend::words::Lexer;

/// Runs the syntax rules; one line per finding.
fn check(text: &str) -> String {
    let (document, diagnostics) = parse("Dockerfile", text.as_bytes());
    assert_eq!(diagnostics, [], "{text}");
    let options = document.directives.check.as_ref().map(|check| CheckOptions::parse(check.first_word()));
    let mut linter = Linter::new(options.transpose().expect("the options are fine").unwrap_or_default());
    check_syntax(&document, &mut linter);
    print(linter)
}

/// Sorted by line, rule and message.
fn print(linter: Linter) -> String {
    let mut findings = linter.into_findings();
    findings.sort_by_key(|finding| (finding.lines.start, finding.rule.name(), finding.message.clone()));
    let line = |finding: lint::Finding| {
        format!("{} {}: {}\n", finding.lines.start, finding.rule.name(), finding.message)
    };
    findings.into_iter().map(line).collect()
}

#[test]
fn syntax_rules() {
    insta::assert_snapshot!(check("FROM a As Build\nfrom b AS scratch\nMaintainer me\nRUN x \\\n\n y\nFROM c AS build\nfrom d as ok\n"), @r#"
    1 FromAsCasing: 'As' and 'FROM' keywords' casing do not match
    1 StageNameCasing: Stage name 'Build' should be lowercase
    2 ConsistentInstructionCasing: Command 'from' should match the case of the command majority (uppercase)
    2 FromAsCasing: 'AS' and 'from' keywords' casing do not match
    2 ReservedStageName: Stage name should not use the same name as reserved stage "scratch"
    3 ConsistentInstructionCasing: Command 'Maintainer' should match the case of the command majority (uppercase)
    3 MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label
    6 NoEmptyContinuation: Empty continuation line
    7 DuplicateStageName: Duplicate stage name "build", stage names should be unique
    8 ConsistentInstructionCasing: Command 'from' should match the case of the command majority (uppercase)
    "#);
}

/// BuildKit lints an instruction before it reads it, and none after the first error.
#[test]
fn findings_before_an_error() {
    let before = |text: &str| {
        let (document, diagnostics) = parse("Dockerfile", text.as_bytes());
        let findings = findings_before(&document, CheckOptions::default(), &diagnostics[0]);
        findings.iter().map(lint::Finding::short).collect::<Vec<_>>()
    };
    let deprecated = "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label";
    assert_eq!(
        before("FROM a AS B\nMAINTAINER\nMAINTAINER me\nRUN x \\\n\n y\n"),
        [
            "NoEmptyContinuation: Empty continuation line (line 6)".to_owned(),
            "StageNameCasing: Stage name 'B' should be lowercase (line 1)".to_owned(),
            format!("{deprecated} (line 2)"),
        ]
    );
    assert_eq!(
        before("FROM a as B c\n"),
        ["FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)"]
    );
    assert_eq!(before("MAINTAINER me\nFROM a\nENV x\n"), [] as [&str; 0], "the parser's errors come first");
}

#[test]
fn lower_case_majority() {
    insta::assert_snapshot!(check("ARG X\nfrom a\nrun b\nRUN c\n"), @r"4 ConsistentInstructionCasing: Command 'RUN' should match the case of the command majority (lowercase)");
    insta::assert_snapshot!(check("from a\nRUN c\n"), @r"1 ConsistentInstructionCasing: Command 'from' should match the case of the command majority (uppercase)");
}

#[test]
fn descriptions_when_asked_for() {
    let text = "# words\nARG A\n# A is it\nARG A B\n# x\nARG C D\n# y\nFROM a AS b\n# z\nFROM c\n";
    assert_eq!(check(text), "");
    insta::assert_snapshot!(check(&format!("# check=experimental=all\n{text}")), @r"
    3 InvalidDefinitionDescription: Comment for ARG should follow the format: `# A <description>`
    7 InvalidDefinitionDescription: Comment for ARG should follow the format: `# <arg_key> <description>`
    9 InvalidDefinitionDescription: Comment for FROM should follow the format: `# b <description>`
    ");
}

#[test]
fn skipping() {
    let text = "# check=skip=StageNameCasing\nFROM a AS X\n# check=skip=FromAsCasing;error=true\nFROM a as Y\nFROM a as Z\n";
    insta::assert_snapshot!(check(text), @r"5 FromAsCasing: 'as' and 'FROM' keywords' casing do not match");
    assert_eq!(check("# check=skip=all\nFROM a as X\nMAINTAINER x\n"), "");
    insta::assert_snapshot!(check("FROM a AS x\n# check=skip=MaintainerDeprecated\nMAINTAINER x\nMAINTAINER y\n"), @r"4 MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label");
}

#[test]
fn options() {
    let parse = |text: &str| CheckOptions::parse(text).map_err(|error| error.to_string());
    let options = parse(" skip = A , B ;error=true;experimental=all ").expect("they are fine");
    assert_eq!(options.skip, BTreeSet::from(["A".to_owned(), "B".to_owned()]));
    assert!(options.error && options.experimental_all && !options.skip_all);
    assert_eq!(parse("nothing"), Err("invalid check option \"nothing\"".to_owned()));
    assert_eq!(parse("skp=all"), Err("invalid check option \"skp\"".to_owned()));
    assert!(parse("error=maybe").expect_err("it is no boolean").contains("error=maybe"));
}

#[test]
fn failures() {
    let (document, _) = parse("Dockerfile", b"FROM a AS X\nFROM a as Y\n");
    let mut linter = Linter::new(CheckOptions { error: true, ..CheckOptions::default() });
    assert_eq!(linter.failure(), None);
    check_syntax(&document, &mut linter);
    assert_eq!(
        linter.failure().as_deref(),
        Some("lint violation found for rules: FromAsCasing, StageNameCasing")
    );
}

#[test]
fn rules_of_stages() {
    let text =
        "FROM a\nENV MY_TOKEN x\nENV PUBLIC_KEY=x\nCMD x\nCMD y\nWORKDIR app\nCOPY d/x /\nEXPOSE 80/TCP\n";
    let (document, diagnostics) = parse("Dockerfile", text.as_bytes());
    assert_eq!(diagnostics, []);
    let mut linter = Linter::default();
    let mut cmd = lint::UsedOnce::default();
    for instruction in &document.instructions {
        match &instruction.command {
            Command::Env(env) => {
                for pair in &env.env {
                    lint::legacy_key_value(&mut linter, instruction, pair);
                    lint::secret_key(&mut linter, instruction, "ENV", &pair.key);
                }
            }
            Command::Cmd(_) => {
                cmd.note(&mut linter, instruction);
                lint::shell_form(&mut linter, instruction);
            }
            Command::Workdir(path) => lint::relative_workdir(&mut linter, instruction, path),
            Command::Copy(copy) => {
                let matcher = solver::pattern::PatternMatcher::new(&["d"]).expect("the pattern is fine");
                lint::ignored_source(&mut linter, instruction, "Copy", &copy.files.paths[0], &matcher);
                lint::ignored_source(&mut linter, instruction, "Copy", ".", &matcher);
            }
            Command::Expose(expose) => {
                lint::expose_proto_casing(&mut linter, instruction, &expose.ports[0]);
                lint::expose_invalid_format(&mut linter, instruction, "1:2");
            }
            _ => {}
        }
    }
    insta::assert_snapshot!(print(linter), @r#"
    2 LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format
    2 SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV "MY_TOKEN")
    4 JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals
    4 MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used
    5 JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals
    6 WorkdirRelativePath: Relative workdir "app" can have unexpected results if the base image changes
    7 CopyIgnoredFile: Attempting to Copy file "d/x" that is excluded by .dockerignore
    8 ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '1:2'
    8 ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase
    "#);
}

#[test]
fn rules_of_variables() {
    let (document, _) = parse("Dockerfile", b"FROM --platform=$TARGETPLATFORM a AS amd64\nRUN x\n");
    let (from, run) = (&document.instructions[0], &document.instructions[1]);
    let mut linter = Linter::default();
    lint::undefined_variables(&mut linter, run, ["FO", "XYZ"], &["FOO", "BAR"]);
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    lint::undefined_from_args(&mut linter, from.place(), &set(&["V", "W"]), &set(&["W", "VV"]));
    let env = [("TARGETPLATFORM".to_owned(), "linux/amd64".to_owned())];
    let variable = Lexer::new('\\').expand("$TARGETPLATFORM", &env[..]).expect("it is well-formed");
    let constant = Lexer::new('\\').expand("linux/amd64", &env[..]).expect("it is well-formed");
    lint::redundant_target_platform(&mut linter, from.place(), "$TARGETPLATFORM", &variable, "linux/amd64");
    lint::redundant_target_platform(&mut linter, from.place(), "linux/amd64", &constant, "linux/amd64");
    lint::constant_platform(&mut linter, from.place(), Some("amd64"), &constant, "linux", "amd64");
    lint::constant_platform(&mut linter, from.place(), None, &constant, "linux", "amd64");
    lint::constant_platform(&mut linter, from.place(), None, &variable, "linux", "amd64");
    lint::base_image_platform(&mut linter, from.place(), "a:latest", "linux/arm64", "linux/amd64");
    lint::invalid_default_base(&mut linter, from.place(), "$A");
    insta::assert_snapshot!(print(linter), @r#"
    1 FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value "linux/amd64"
    1 InvalidBaseImagePlatform: Base image a:latest was pulled with platform "linux/amd64", expected "linux/arm64" for current build
    1 InvalidDefaultArgInFrom: Default value for ARG $A results in empty or invalid base image name
    1 RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior
    1 UndefinedArgInFrom: FROM argument 'V' is not declared (did you mean VV?)
    2 UndefinedVar: Usage of undefined variable '$FO' (did you mean $FOO?)
    2 UndefinedVar: Usage of undefined variable '$XYZ'
    "#);
}

#[test]
fn every_rule_has_its_facts() {
    let names: BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    assert_eq!(names.len(), 22);
    for rule in Rule::ALL {
        assert_eq!(rule.url().is_empty(), rule == Rule::InvalidBaseImagePlatform, "{rule:?}");
        assert!(!rule.description().is_empty());
    }
    assert_eq!(
        Rule::JSONArgsRecommended.url(),
        "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"
    );
}

#[test]
fn findings_render_as_warnings() {
    let (document, _) = parse("Dockerfile", b"FROM a AS X\n");
    let mut linter = Linter::default();
    check_syntax(&document, &mut linter);
    let finding = &linter.findings()[0];
    assert_eq!(finding.short(), "StageNameCasing: Stage name 'X' should be lowercase (line 1)");
    insta::assert_snapshot!(finding.diagnostic().render(&document.source), @r"
    Dockerfile:1
    --------------------
       1 | >>> FROM a AS X
         |               ^
       2 |     
    --------------------
    warning: StageNameCasing: Stage name 'X' should be lowercase
    see https://docs.docker.com/go/dockerfile/rule/stage-name-casing/
    ");
}
