import {
  type FormEvent,
  type InputHTMLAttributes,
  type ReactNode,
  useEffect,
  useId,
  useRef,
  useState,
} from "react";
import { explain, type Said } from "./words.js";

/** Sends a form once at a time. */
export function useForm(send: () => Promise<void>) {
  const [busy, setBusy] = useState(false);
  const [said, say] = useState<Said>();
  const [left, setLeft] = useState(0);
  const form = useRef<HTMLFormElement>(null);
  const mounted = useRef(true);
  useEffect(() => {
    mounted.current = true;
    return () => {
      mounted.current = false;
    };
  }, []);
  const waiting = left > 0;
  useEffect(() => {
    if (!waiting) return;
    const timer = setInterval(() => setLeft((seconds) => Math.max(0, seconds - 1)), 1000);
    return () => clearInterval(timer);
  }, [waiting]);
  useEffect(() => {
    // There it can be mended.
    if (said?.field) form.current?.querySelector<HTMLElement>("[aria-invalid]")?.focus();
  }, [said]);
  const submit = async (event?: FormEvent) => {
    event?.preventDefault();
    if (busy || waiting) return;
    setBusy(true);
    say(undefined);
    try {
      await send();
    } catch (error) {
      if (!mounted.current) return;
      const why = explain(error);
      say(why);
      setLeft(why.wait ?? 0);
    } finally {
      if (mounted.current) setBusy(false);
    }
  };
  return { submit, busy, said, left, say, form };
}

/** What `useForm` gives. */
export type FormState = ReturnType<typeof useForm>;

/** A form with its fields, what went wrong, and the button. */
export function Form({
  state,
  button,
  danger = false,
  children,
}: {
  state: FormState;
  button: string;
  danger?: boolean;
  children: ReactNode;
}) {
  const { busy, said, left } = state;
  return (
    <form ref={state.form} className="account-form" onSubmit={state.submit} aria-busy={busy}>
      {children}
      {said && (
        <p className="problem" role="alert">
          {said.text}
        </p>
      )}
      {/* Not `disabled`: the focus would be lost. */}
      <button
        type="submit"
        className={danger ? "danger" : "primary"}
        aria-disabled={busy || left > 0}
      >
        {left > 0 ? `Wait ${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}` : button}
      </button>
    </form>
  );
}

type FieldProps = {
  label: string;
  value: string;
  onChange: (value: string) => void;
  hint?: string | undefined;
  invalid?: boolean | undefined;
  /** Is where one begins. */
  first?: boolean | undefined;
} & Omit<InputHTMLAttributes<HTMLInputElement>, "onChange" | "value" | "id">;

/** A field with its label, and a button beside it. */
export function Field({
  label,
  value,
  onChange,
  hint,
  invalid,
  first,
  children,
  ...rest
}: FieldProps) {
  const id = useId();
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (first) input.current?.focus();
  }, [first]);
  return (
    <div className="account-field">
      <label htmlFor={id}>{label}</label>
      <div className="account-box">
        <input
          ref={input}
          id={id}
          className="wide"
          value={value}
          aria-invalid={invalid || undefined}
          aria-describedby={hint ? `${id}-hint` : undefined}
          onChange={(event) => onChange(event.target.value)}
          {...rest}
        />
        {children}
      </div>
      {hint && (
        <small id={`${id}-hint`} className="soft">
          {hint}
        </small>
      )}
    </div>
  );
}

/** A field for an address. */
export function EmailField(props: Omit<FieldProps, "label"> & { label?: string }) {
  return (
    <Field
      label="E-mail address"
      type="email"
      name="email"
      autoComplete="username"
      autoCapitalize="none"
      spellCheck={false}
      maxLength={254}
      required
      {...props}
    />
  );
}

/** A field for a password, which can be shown. */
export function PasswordField({
  fresh,
  min,
  ...props
}: Omit<FieldProps, "label"> & {
  label?: string;
  /** It is being chosen: password managers offer one. */
  fresh?: boolean;
  /** So many characters it needs. */
  min?: number | undefined;
}) {
  const [shown, show] = useState(false);
  return (
    <Field
      label={fresh ? "New password" : "Password"}
      type={shown ? "text" : "password"}
      name={fresh ? "new-password" : "password"}
      autoComplete={fresh ? "new-password" : "current-password"}
      autoCapitalize="none"
      spellCheck={false}
      maxLength={256}
      required
      {...(fresh && min ? { minLength: min, hint: `At least ${min} characters.` } : {})}
      {...props}
    >
      <button
        type="button"
        className="link"
        aria-pressed={shown}
        aria-label="Show password"
        onClick={() => show(!shown)}
      >
        {shown ? "Hide" : "Show"}
      </button>
    </Field>
  );
}

/** Tells password managers whose password a form is about. */
export function WhosePassword({ email }: { email: string | undefined }) {
  if (!email) return null;
  return (
    <input
      className="visually-hidden"
      type="email"
      name="email"
      autoComplete="username"
      value={email}
      readOnly
      tabIndex={-1}
      aria-hidden="true"
    />
  );
}
