//! The image config that a Dockerfile makes.

use insta::assert_snapshot;

use crate::world::{World, lowered, lowered_in, options, render};

fn image(text: &str, attrs: &[(&str, &str)]) -> String {
    let lowered = lowered(text, attrs);
    let image = serde_json::to_value(&lowered.image).unwrap();
    let history: Vec<String> = lowered
        .image
        .history
        .iter()
        .map(|entry| format!("{}{}", if entry.empty_layer { "  " } else { "+ " }, entry.created_by))
        .collect();
    format!("{} {}\n{}\n{}", image["os"], image["architecture"], image["config"], history.join("\n"))
}

#[test]
fn every_instruction() {
    assert_snapshot!(image(
        "FROM base\nMAINTAINER me\nARG A=1 B\nENV X=$A Y=\"a b\"\nENV PATH=/x:$PATH\nLABEL l=$X m='n'\nEXPOSE 80 $A-3/UDP\n\
         VOLUME [\"/v\", \"/w\"]\nUSER u$A\nWORKDIR /d\nWORKDIR e\nSHELL [\"/bin/ash\", \"-c\"]\nSTOPSIGNAL SIGTERM\n\
         HEALTHCHECK --interval=1m --retries=3 CMD ok\nONBUILD RUN later\nRUN echo $A\nENTRYPOINT go $A\nCMD [\"a\", \"b\"]\n",
        &[("label:cli", "yes"), ("build-arg:B", "given")],
    ), @r#"
    "linux" "amd64"
    {"User":"u1","ExposedPorts":{"1/udp":{},"2/udp":{},"3/udp":{},"80/tcp":{}},"Env":["PATH=/x:/bin","LANG=C","X=1","Y=a b"],"Entrypoint":["/bin/ash","-c","go $A"],"Cmd":["a","b"],"Volumes":{"/v":{},"/w":{}},"WorkingDir":"/d/e","Labels":{"cli":"yes","l":"1","m":"n"},"StopSignal":"SIGTERM","ArgsEscaped":true,"Healthcheck":{"Test":["CMD-SHELL","ok"],"Interval":60000000000,"Retries":3},"OnBuild":["RUN later"],"Shell":["/bin/ash","-c"]}
      MAINTAINER me
      ARG A=1 B=given
      ENV X=1 Y=a b
      ENV PATH=/x:/bin
      LABEL l=1 m=n
      EXPOSE [1/udp 2/udp 3/udp 80/tcp]
      VOLUME [/v /w]
      USER u1
    + WORKDIR /d
    + WORKDIR /d/e
      SHELL [/bin/ash -c]
      STOPSIGNAL SIGTERM
      HEALTHCHECK {Test:[CMD-SHELL ok] Interval:1m0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:3}
    + RUN |2 A=1 B=given /bin/ash -c echo $A # buildkit
      ENTRYPOINT ["/bin/ash" "-c" "go $A"]
      CMD ["a" "b"]
    "#);
}

#[test]
fn entrypoint_drops_an_inherited_cmd() {
    assert_snapshot!(image("FROM base\nENTRYPOINT [\"e\"]\n", &[]), @r#"
    "linux" "amd64"
    {"Env":["PATH=/bin","LANG=C"],"Entrypoint":["e"]}
      ENTRYPOINT ["e"]
    "#);
}

#[test]
fn scratch_has_a_path_and_a_directory() {
    assert_snapshot!(image("FROM scratch\nCOPY --parents --chown=1 a <<F /\nx\nF\n", &[]), @r#"
    "linux" "amd64"
    {"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/"}
    + COPY --parents --chown=1 a <<F / # buildkit
    "#);
}

#[test]
fn images_are_for_the_platform_that_was_asked_for() {
    assert_snapshot!(image("FROM base\n", &[("platform", "linux/arm/v6")]), @r#"
    "linux" "arm"
    {"Env":["PATH=/bin","LANG=C"],"Cmd":["sh"]}
    "#);
}

#[test]
fn an_empty_image_is_scratch() {
    let lowered = lowered("FROM empty\n", &[]);
    assert_eq!(lowered.graph.head, None);
    assert_eq!(lowered.image.config.cmd, ["sh"]);
    assert_eq!(lowered.image.created, None);
    assert_eq!(lowered.base_image.unwrap().created.as_deref(), Some("2020-01-01T00:00:00Z"));
}

#[test]
fn times_come_from_the_epoch() {
    let world = World { time: Some(Some(60)), ..World::new() };
    let text = "FROM scratch AS when\nADD https://h.x/f /\nFROM base\nARG SOURCE_DATE_EPOCH\nENV A=$SOURCE_DATE_EPOCH\n";
    let lowered = lowered_in(&world, text, &options(&[("build-arg:SOURCE_DATE_EPOCH", "when")])).unwrap();
    assert_eq!(lowered.epoch, Some(60));
    assert_eq!(lowered.image.config.env("A"), Some("60"));
    assert_eq!(lowered.image.history[0].created.as_deref(), Some("1970-01-01T00:01:00Z"));
}

#[test]
fn scans_for_an_sbom() {
    let text = "FROM base AS a\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN x\nFROM base\nCOPY --from=a /x /\n";
    let lowered = lowered(text, &[("build-arg:BUILDKIT_SBOM_SCAN_CONTEXT", "1")]);
    let names: Vec<&str> = lowered.scans.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a"]);
}

#[test]
fn outlines_follow_the_stages_that_are_used() {
    let text = "# T is the tag\nARG T=latest\nFROM base:$T AS a\nRUN --mount=type=secret,id=s,required=true x\n\
                FROM base:latest AS b\nARG L=2\nCOPY --from=a /x /\nRUN --mount=type=ssh x\n";
    let outline = lowered(text, &[]).outline;
    let args: Vec<String> =
        outline.args.iter().map(|arg| format!("{}={} ({})", arg.name, arg.value, arg.description)).collect();
    assert_eq!(args, ["T=latest (is the tag)", "L=2 ()"]);
    let [secret] = &outline.secrets[..] else { panic!("{outline:?}") };
    assert_eq!((secret.name.as_str(), secret.required, secret.lines.start), ("s", true, 4));
    assert_eq!(outline.ssh[0].name, "default");
}

/// Its trigger names itself, and so would the triggers of what that names, without end.
#[test]
fn an_image_whose_trigger_copies_from_the_image_itself() {
    let mut world = World::new();
    let mut image = world.images["docker.io/library/triggers:latest"].clone();
    let config = String::from_utf8(image.config).unwrap();
    image.config = config.replace("--from=base", "--from=self").into_bytes();
    world.images.insert("docker.io/library/self:latest", image);
    let lowered = lowered_in(&world, "FROM self\n", &options(&[])).unwrap();
    let graph = render(&lowered.graph);
    assert_eq!(graph.matches("docker-image://").count(), 1, "{graph}");
    assert!(graph.contains("/y"), "{graph}");
}
