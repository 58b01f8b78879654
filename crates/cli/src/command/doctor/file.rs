//! `enclasp doctor csr`: what is wrong with a file, and what of that can be mended.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use enclasp_doctor::Report;
use enclasp_doctor::file::{Examined, File, Kind, examine};
use enclasp_keystore::{KeyUri, durable};
use serde::Serialize;

use super::conclude;
use crate::args::Global;
use crate::failure::{Failure, Outcome};
use crate::{input, output};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp doctor csr web.csr                     what is wrong, where, and what to do
  enclasp doctor csr web.csr --key soft:name=web    and whether it is for that key
  enclasp doctor csr web.csr --fix --out good.csr   writes what can be mended without the key")]
pub(crate) struct Csr {
    /// The request, in PEM or DER or what was meant to be that; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The key that the request should be for.
    #[arg(long, value_name = "URI")]
    key: Option<KeyUri>,
    #[command(flatten)]
    fix: Fix,
}

/// Whether to write what can be mended, and where.
#[derive(clap::Args)]
struct Fix {
    /// Write what can be mended without the key, and say what cannot. The file itself stays as it is.
    #[arg(long)]
    fix: bool,
    /// Where to write it [default: FILE.fixed].
    #[arg(long, value_name = "FILE", requires = "fix")]
    out: Option<PathBuf>,
}

pub(crate) fn csr(global: &Global, csr: &Csr) -> Outcome {
    let public_key = match &csr.key {
        Some(uri) => Some(global.state()?.open_key(uri)?.info().spki.clone()),
        None => None,
    };
    look(global, Kind::Request, &csr.file, &csr.fix, public_key.as_deref())
}

fn look(global: &Global, kind: Kind, path: &Path, fix: &Fix, public_key: Option<&[u8]>) -> Outcome {
    let bytes = input::file(path)?;
    let name = path.display().to_string();
    let examined = examine(kind, &File { name: &name, bytes: &bytes, now: SystemTime::now(), public_key });
    if !fix.fix {
        if examined.repair.is_some() {
            output::note(format_args!("--fix writes what can be mended without the key"));
        }
        return conclude(global, &examined.report);
    }
    let out = destination(path, fix)?;
    let written = examined.repair.as_ref().map(|repair| durable::replace(&out, &repair.bytes)).transpose()?;
    let fixed = Fixed {
        report: &examined.report,
        fixed: written.map(|()| &*out),
        done: examined.repair.as_ref().map_or(&[], |repair| &repair.done),
        unrepaired: &examined.unrepaired,
    };
    if global.json {
        output::json(&fixed)?;
    } else {
        output::raw(examined.report.to_string().as_bytes())?;
    }
    tell(&examined, &out);
    match &examined.unrepaired[..] {
        [] => Ok(()),
        [first, ..] => Err(Failure::new(format!("not all could be mended: {first}"))),
    }
}

/// A report, and what came of `--fix`.
#[derive(Serialize)]
struct Fixed<'a> {
    #[serde(flatten)]
    report: &'a Report,
    /// The file that was written; none if there was nothing to mend, or nothing that could be.
    fixed: Option<&'a Path>,
    done: &'a [String],
    unrepaired: &'a [String],
}

fn tell(examined: &Examined, out: &Path) {
    match &examined.repair {
        Some(repair) => {
            output::note(format_args!("wrote {}:", out.display()));
            repair.done.iter().for_each(|line| output::note(format_args!("  {line}")));
        }
        None if examined.unrepaired.is_empty() => {
            output::note("there is nothing to mend; nothing was written")
        }
        None => output::note("nothing can be mended without the key; nothing was written"),
    }
    for line in &examined.unrepaired {
        output::note(format_args!("not mended: {line}"));
    }
}

/// Where the mended file goes: never over the one that was given.
fn destination(path: &Path, fix: &Fix) -> Outcome<PathBuf> {
    let out = match &fix.out {
        Some(out) => out.clone(),
        None if path == Path::new("-") => {
            return Err(Failure::usage("standard input has no name: say --out FILE, too"));
        }
        None => {
            let mut name = path.as_os_str().to_owned();
            name.push(".fixed");
            PathBuf::from(name)
        }
    };
    let same = out.canonicalize().is_ok_and(|out| path.canonicalize().is_ok_and(|path| path == out));
    if same {
        return Err(Failure::usage("--out is the file itself, which stays as it is: name another one"));
    }
    Ok(out)
}
