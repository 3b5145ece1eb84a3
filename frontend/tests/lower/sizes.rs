//! Large files: what has to stay linear.

use crate::world::lowered;

/// A chain of stages keeps one history, not one per stage; a wide file asks for each image once.
#[test]
fn ten_thousand_stages_and_instructions() {
    let mut chain = String::from("FROM base AS s0\n");
    for stage in 1..10_000 {
        chain += &format!("FROM s{} AS s{stage}\nENV A{}=1\n", stage - 1, stage % 50);
    }
    assert_eq!(lowered(&chain, &[]).image.history.len(), 9_999);

    let mut wide = String::from("FROM scratch AS all\n");
    for stage in 0..5_000 {
        wide += &format!("COPY --from=base /f{stage} /\nRUN true {stage}\n");
    }
    assert_eq!(lowered(&wide, &[]).graph.vertices().len(), 10_001);
}
