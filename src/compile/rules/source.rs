//! What can be wrong with a file before it is read as a workflow. `crate::source` finds it, in commits and in folders.

use super::Rule;

pub(crate) const TOO_LARGE: Rule =
    rule!(Error "XE0901", "file above 1 MiB", "if it holds no workflow, list it in .xeneignore");
pub(crate) const LINK: Rule = rule!(Error "XE0902", "link not followed", "links must lead to a file within the source");
pub(crate) const LFS: Rule = rule!(Error "XE0903", "pointer of Git LFS", "keep workflows out of LFS");
pub(crate) const SUBMODULE: Rule = rule!(Warning "XE0904", "submodule", "list it in .xeneignore");
pub(crate) const PATH: Rule = rule!(Error "XE0905", "name is not UTF-8", "rename the file");
pub(crate) const UNREADABLE: Rule = rule!(Error "XE0906", "file can't be read", "make it readable for the controller");
pub(crate) const UNSETTLED: Rule =
    rule!(Error "XE0907", "file is being written all the time", "if it holds no workflow, list it in .xeneignore");
pub(crate) const IGNORE_LINE: Rule = rule!(Warning "XE0908", "bad line in .xeneignore", "write it as in .gitignore");
