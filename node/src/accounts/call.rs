//! A request as a call of its own, as it is below the feature level that has slices: one entry sets aside, another one
//! settles.

use super::{AGAIN, Account, Accounts, Caller, LIVES, Need, NotBegun, SETTLING, Source};
use ledger::command::Command;
use ledger::keys::Holding;
use ledger::reply::Reply;
use ledger::rows::{CallId, Used};
use std::time::Instant;
use types::ProjectName;

impl Accounts {
    pub(super) async fn begin_call(&self, caller: Caller, need: Need) -> Result<Account, NotBegun> {
        let (call, stop) = self.enter(&caller.project);
        let mut account = Account {
            accounts: self.clone(),
            from: Source::Call(caller.project.clone(), call),
            granted: 0,
            stop,
            begun: Instant::now(),
            ended: false,
        };
        let command = self.command(call, caller, need);
        // Refused or not heard: dropping the account ends what may have begun.
        match self.0.client.propose_one(command).await.map_err(NotBegun::Unheard)? {
            Reply::Reserved(granted) => {
                (account.granted, account.begun) = (granted, Instant::now());
                Ok(account)
            }
            Reply::Refused(refusal) => {
                account.ended = true;
                self.close(call);
                Err(NotBegun::Refused(refusal))
            }
            other => Err(NotBegun::Odd(format!("{other:?} does not answer a reservation; try again later"))),
        }
    }

    fn command(&self, call: CallId, caller: Caller, need: Need) -> Command {
        let wanted = need.wanted();
        Command::BeginCall {
            call,
            project: caller.project,
            model: need.model,
            author: caller.author,
            node: self.0.own,
            min_tokens: wanted.min_tokens,
            max_tokens: wanted.max_tokens,
            want: wanted.want,
            lives_ms: u64::try_from(LIVES.as_millis()).unwrap_or(u64::MAX),
            needs: need.destination.map(|to| (Holding::Connections(to), 1)).into_iter().collect(),
        }
    }

    /// Comes back when it is settled, or after a while: it is then settled later.
    pub(super) async fn end_call(&self, project: ProjectName, call: CallId, used: Used) {
        let settled = tokio::spawn(self.clone().settle(project, call, used));
        if tokio::time::timeout(SETTLING, settled).await.is_err() {
            tracing::info!("a request is settled later: no leader answers");
        }
    }

    /// Tells the ledger what a call used, until it has heard it or the call is over by itself.
    pub(super) async fn settle(self, project: ProjectName, call: CallId, used: Used) {
        let Used { fresh_tokens, known_tokens, generated_tokens, extra } = used;
        let command = Command::EndCall { project, call, fresh_tokens, known_tokens, generated_tokens, extra };
        let begun = Instant::now();
        while let Err(error) = self.0.client.propose_one(command.clone()).await {
            if begun.elapsed() >= LIVES {
                tracing::warn!(%error, "a request was not settled; it counts at what it had set aside");
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
        self.close(call);
    }
}
