//! Scripts: the Lua that runs inside Redis, by name. Knows no topic.

use std::sync::LazyLock;

use redis::Cmd;

/// One script.
#[derive(Debug)]
pub(super) struct Script {
    code: &'static str,
    sha: String,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) append: Script,
    /// Takes the arguments of `append` behind its own.
    pub(super) bury: Script,
    pub(super) state: Script,
    pub(super) page: Script,
    pub(super) trim: Script,
    pub(super) create: Script,
    pub(super) destroy: Script,
    pub(super) groups: Script,
    pub(super) fetch: Script,
    pub(super) claim: Script,
    pub(super) ack: Script,
    pub(super) give: Script,
    pub(super) pending: Script,
    pub(super) consumers: Script,
    pub(super) remove: Script,
    pub(super) delete: Script,
}

macro_rules! script {
    ($name:literal) => {
        Script::new(concat!(include_str!("lua/prelude.lua"), include_str!(concat!("lua/", $name, ".lua"))))
    };
}

pub(super) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts {
    append: script!("append"),
    bury: Script::new(concat!(
        include_str!("lua/prelude.lua"),
        "local function append(KEYS, ARGV)\n",
        include_str!("lua/append.lua"),
        "end\n",
        include_str!("lua/bury.lua"),
    )),
    state: script!("state"),
    page: script!("page"),
    trim: script!("trim"),
    create: script!("create"),
    destroy: script!("destroy"),
    groups: script!("groups"),
    fetch: script!("fetch"),
    claim: script!("claim"),
    ack: script!("ack"),
    give: script!("give"),
    pending: script!("pending"),
    consumers: script!("consumers"),
    remove: script!("remove"),
    delete: script!("delete"),
});

impl Script {
    fn new(code: &'static str) -> Self {
        Self { code, sha: redis::Script::new(code).get_hash().to_owned() }
    }

    /// `EVALSHA` with these keys; arguments are to be added.
    pub(super) fn on<K: AsRef<str>>(&self, keys: &[K]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.sha).arg(keys.len());
        for key in keys {
            command.arg(key.as_ref());
        }
        command
    }
}

/// What makes a server know the scripts.
pub(super) fn load() -> Vec<Cmd> {
    let Scripts {
        append,
        bury,
        state,
        page,
        trim,
        create,
        destroy,
        groups,
        fetch,
        claim,
        ack,
        give,
        pending,
        consumers,
        remove,
        delete,
    } = &*SCRIPTS;
    [append, bury, state, page, trim, create, destroy, groups, fetch, claim, ack, give, pending, consumers, remove, delete]
        .into_iter()
        .map(|script| {
            let mut command = redis::cmd("SCRIPT");
            command.arg("LOAD").arg(script.code);
            command
        })
        .collect()
}
