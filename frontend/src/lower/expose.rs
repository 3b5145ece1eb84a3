//! EXPOSE.

use crate::ast::{ExposeCommand, Instruction};
use crate::config::Empty;
use crate::lint;
use crate::lower::build::Context;
use crate::lower::configure::commit;
use crate::lower::error::{LowerError, Result};
use crate::lower::ports;
use crate::lower::stage::Stage;

pub(super) fn expose(
    context: &mut Context<'_>,
    stage: &mut Stage<'_>,
    instruction: &Instruction,
    command: &ExposeCommand,
) -> Result<()> {
    let mut words = Vec::new();
    for word in &command.ports {
        let split = context.lexer.split(word, &stage.state.env);
        words.extend(split.map_err(|error| LowerError::word(error, word))?);
    }
    let mut exposed = Vec::new();
    for word in &words {
        let (parsed, flags) = ports::parse(word);
        if flags.odd_case {
            lint::expose_proto_casing(&mut context.linter, instruction, word);
        }
        if flags.mapped {
            lint::expose_invalid_format(&mut context.linter, instruction, word);
        }
        exposed.extend(parsed.map_err(|error| LowerError::word(error, word))?);
    }
    let message = format!("EXPOSE [{}]", exposed.join(" "));
    stage.image.config.exposed_ports.extend(exposed.into_iter().map(|port| (port, Empty {})));
    commit(context, stage, message, false);
    Ok(())
}
