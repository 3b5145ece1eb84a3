//! Commands and how they end.

use crate::support::Bench;

#[test]
fn exit_codes_and_signals() {
    let Some(bench) = Bench::new() else { return };
    for (script, expected) in
        [("exit 0", 0), ("exit 7", 7), ("kill -9 $$; exit 3", 3), ("sh -c 'kill -15 $$'; exit $?", 143)]
    {
        assert_eq!(bench.run(script).code(), expected, "{script}");
    }
}

#[test]
fn output_goes_where_the_caller_wants_it() {
    let Some(bench) = Bench::new() else { return };
    let output = bench.run("echo out; echo err >&2; echo $$; pwd; hostname; cat /etc/hosts");
    assert_eq!(
        output.text(),
        "out\nerr\n1\n/\nbuildkitsandbox\n127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    );
}
