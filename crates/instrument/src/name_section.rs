//! The names of the module and its functions, for backtraces.

use crate::added::Added;
use crate::validate::Source;
use wasm_encoder::{NameMap, NameSection};
use wasmparser::{KnownCustom, Name};

/// The module's name and its functions' names, as far as it has any, and those of the added
/// functions. A malformed name section counts as none, as it does for engines.
pub(crate) fn name_section(source: &Source<'_>, added: &Added) -> NameSection {
    let (module, mut functions) = read(source).unwrap_or_default();
    let first = source.function_space.len() as u32;
    for (position, function) in added.functions.iter().enumerate() {
        functions.append(first + position as u32, function.name);
    }
    let mut section = NameSection::new();
    if let Some(module) = module {
        section.module(module);
    }
    section.functions(&functions);
    section
}

fn read<'a>(source: &Source<'a>) -> Option<(Option<&'a str>, NameMap)> {
    let KnownCustom::Name(subsections) = source.name_section.as_ref()?.as_known() else {
        return None;
    };
    let mut module = None;
    let mut functions = NameMap::new();
    let mut previous = None;
    for subsection in subsections {
        match subsection.ok()? {
            Name::Module { name, .. } => module = Some(name),
            Name::Function(map) => {
                for naming in map {
                    let naming = naming.ok()?;
                    let known = (naming.index as usize) < source.function_space.len();
                    // Indices must rise, or names of added functions could be doubled.
                    if !known || previous.is_some_and(|previous| previous >= naming.index) {
                        return None;
                    }
                    previous = Some(naming.index);
                    functions.append(naming.index, naming.name);
                }
            }
            _ => {}
        }
    }
    Some((module, functions))
}
