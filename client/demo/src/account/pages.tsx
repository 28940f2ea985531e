import type { AccountPage } from "../router.js";
import { SignIn } from "../sign-in.js";
import { Mailbox } from "./mailbox.js";
import { Forgot, Reset } from "./password.js";
import { SignUp } from "./sign-up.js";
import { Verify, Welcome } from "./verify.js";

/** Whether a page stands alone, whoever is signed in. */
export function standsAlone(page: AccountPage): boolean {
  return page !== "" && page !== "invitations" && page !== "data";
}

/** The pages about an account that need nobody to be signed in. */
export function AccountPages({ page }: { page: AccountPage }) {
  switch (page) {
    case "sign-up":
      return <SignUp />;
    case "forgot":
      return <Forgot />;
    case "reset":
      return <Reset />;
    case "verify":
      return <Verify />;
    case "welcome":
      return <Welcome />;
    case "mails":
      return <Mailbox />;
    default:
      return <SignIn page={page} />;
  }
}
