//! Where results go: data to standard output in the format asked for, everything else to standard
//! error.

use std::{
    env,
    io::{self, IsTerminal as _, Write},
};

use serde::Serialize;
use serde_yaml::with::singleton_map_recursive;

use super::{
    exit::{Exit, Failure},
    flags::Format,
    table::Table,
};

fn unprintable(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        Exit::LocalIo,
        format!("the result cannot be printed: {error}"),
    )
}

pub(crate) fn yaml_text<T: Serialize>(value: &T) -> Result<String, Failure> {
    let mut text = Vec::new();
    let mut serializer = serde_yaml::Serializer::new(&mut text);
    // `{percent: 10}` as people write it, and not YAML's tag `!percent 10`.
    singleton_map_recursive::serialize(value, &mut serializer)
        .map_err(|error| unprintable(&error))?;
    String::from_utf8(text).map_err(|error| unprintable(&error))
}

/// Standard output with the format the operator chose.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) format: Format,
    /// Tables have all their columns.
    pub(crate) is_wide: bool,
    colours: bool,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            is_wide: format == Format::Wide,
            format,
            colours: wanted && io::stdout().is_terminal(),
        }
    }

    /// True when results are lines for people and not a document for programs.
    pub(crate) fn is_prose(&self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    /// A line of the result, for people.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        self.write(format!("{text}\n").as_bytes())
    }

    pub(crate) fn table(&self, table: &Table) -> Result<(), Failure> {
        self.write(table.render(self.colours).as_bytes())
    }

    /// The result as a document, in JSON or YAML.
    pub(crate) fn document<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        if self.format == Format::Yaml {
            return self.yaml(value);
        }
        let text = serde_json::to_string_pretty(value).map_err(|error| unprintable(&error))?;
        self.write((text + "\n").as_bytes())
    }

    /// The result as YAML, whatever the format: the form in which people write objects.
    pub(crate) fn yaml<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        self.write(yaml_text(value)?.as_bytes())
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            // A reader that has seen enough, such as `head`, is no fault.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(Failure::from),
        }
    }

    /// A remark or an error; when even that cannot be written, nobody is left to tell.
    pub(crate) fn remark(&self, text: &str) {
        drop(writeln!(io::stderr().lock(), "{text}"));
    }
}
