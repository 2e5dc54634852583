//! Mails to operators: whether they would go out, and which have not.

use chrono::TimeDelta;

use crate::control::Caller;
use crate::control::Control;
use crate::control::error::ControlError;
use crate::domain::failure::Failure;
use crate::domain::finding::Finding;
use crate::domain::letter::Letter;
use crate::domain::letter::standing;
use crate::domain::step::Step;
use crate::jobs::kit::Kit;
use crate::notify::mail::MailError;
use crate::notify::mail::Mailer;
use crate::notify::mail::Outcome;
use crate::notify::mail::is_address;
use crate::scheduler::post::send_test;
use crate::wire::mail::MailedView;
use crate::wire::mail::TestMail;
use crate::wire::run::RunView;
use crate::wire::run::StepState;
use crate::wire::run::StepView;

/// For how long status tells of a mail that was given up.
const GIVEN_UP_SHOWN: TimeDelta = TimeDelta::days(7);
/// How many unsent mails status names, each with each of its recipients.
const UNSENT_MAX: u32 = 50;

impl Control {
    /// Sends a mail that says nothing but that it came. When it is taken, whatever waits is due again.
    ///
    /// # Errors
    /// Mail is not configured, the address is none, or the server cannot be reached or does not take it.
    pub async fn test_mail(&self, caller: &Caller, ask: TestMail) -> Result<MailedView, ControlError> {
        Self::must_operate(caller)?;
        let mailer = self.post.mailer.as_ref().ok_or(ControlError::NoMail)?;
        self.audit(caller, "mail.test", &ask.to, ()).await?;
        let tried = self.post.unless_stopped(send_test(mailer, &ask.to, &caller.who)).await;
        let outcome = tried.ok_or_else(|| {
            ControlError::NoServer(Failure::new("wait for the mail server: the daemon stops").hint("ask again later"))
        })?;
        let mailed = mailed(mailer, ask.to, outcome)?;
        self.store.hurry_mails(self.now()).await?;
        Ok(mailed)
    }

    /// Whether the reports of an application would go out; nothing is sent.
    pub(super) async fn mail_findings(&self, kit: &Kit) -> Vec<Finding> {
        let group = &kit.app.report.group;
        let strange = group.iter().filter(|to| !is_address(to)).map(|to| {
            let remedy = format!("correct it: [app.{}] report = {{ group = [..] }}", kit.app.name);
            Finding::warning("mail", format!("the reports cannot go to \"{to}\", which is no mail address"), remedy)
        });
        let mut findings: Vec<Finding> = strange.collect();
        match &self.post.mailer {
            Some(mailer) => findings.extend(self.post.unless_stopped(mailer.check()).await),
            None if let Some(unfit) = &self.settings.mail_unfit => {
                let remedy = unfit.hint.clone().unwrap_or_else(|| "correct it".to_owned());
                findings.push(Finding::warning("mail", format!("no mail is sent: {}", unfit.why), remedy));
            }
            None if group.is_empty() => {}
            None => findings.push(Finding::warning(
                "mail",
                "nobody gets the reports: no mail server is described",
                "describe it: [daemon] mail = { smtp = \"smtp://HOST:587\", from = \"ADDRESS\" }",
            )),
        }
        findings
    }

    /// Who does not have a mail, and what an operator should know of that.
    pub(super) async fn unsent_mail(&self) -> Result<(Vec<Letter>, Option<String>), ControlError> {
        let letters = self.store.unsent_letters(self.now() - GIVEN_UP_SHOWN, UNSENT_MAX).await?;
        let in_trouble = letters.iter().find(|letter| letter.is_in_trouble());
        let notice = in_trouble.map(|letter| {
            format!(
                "mail does not reach everybody: {}; try it with `afterhours mail test {}`",
                letter.said.as_deref().unwrap_or("not tried"),
                letter.to
            )
        });
        Ok((letters, notice))
    }

    /// What became of a run's report, in the words of its step.
    pub(super) async fn tell_of_report(&self, view: &mut RunView) -> Result<(), ControlError> {
        let reported = |step: &&mut StepView| step.step == Step::Report && step.state == StepState::Succeeded;
        let Some(step) = view.steps.iter_mut().find(reported) else { return Ok(()) };
        let letters = self.store.letters_of_run(view.id).await?;
        if !letters.is_empty() {
            // What follows its first line is about other things.
            let more = step.message.iter().flat_map(|message| message.lines().skip(1).map(str::to_owned));
            let lines: Vec<String> = std::iter::once(standing(&letters)).chain(more).collect();
            step.message = Some(lines.join("\n"));
        }
        view.mail = letters;
        Ok(())
    }
}

/// What a server said to a mail that it was to take.
///
/// # Errors
/// It did not take it.
pub fn mailed(mailer: &Mailer, to: String, outcome: Outcome) -> Result<MailedView, ControlError> {
    let error = match outcome {
        Ok(answer) => return Ok(MailedView { to, server: mailer.server(), answer: answer.to_string() }),
        Err(error) => error,
    };
    let failure = Failure { hint: error.hint(), ..Failure::from_error(&*error) };
    Err(match &*error {
        MailError::Address { .. } => ControlError::BadMail(to),
        error if error.is_unreachable() => ControlError::NoServer(failure),
        _ => ControlError::Failed(failure),
    })
}
