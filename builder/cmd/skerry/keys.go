package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/skerryos/skerry/builder/keys"
)

// passphraseVariable holds the passphrase of signing keys where nobody can type it.
const passphraseVariable = "SKERRY_KEY_PASSPHRASE"

// keysCommand groups what is about signing keys.
func keysCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "keys",
		Short: "Make and list the keys that bundles are signed with",
		Long: `Keys are pairs of files in the user's configuration folder (skerry/keys): NAME.key is secret, NAME.pub goes into images.
They are in the format of the minisign tool, which can check a bundle's signature without us.`,
	}
	c.AddCommand(keysNewCommand(), keysListCommand())
	return c
}

func keysNewCommand() *cobra.Command {
	var plain bool
	var file string
	c := &cobra.Command{
		Use:   "new NAME",
		Short: "Make a signing key",
		Long: `New makes an ed25519 key. The secret half is encrypted with a passphrase, which is asked for on the terminal, or taken from
$` + passphraseVariable + ` or a file. A key is never replaced.`,
		Example: `  skerry keys new fleet
  skerry keys new ci --no-passphrase`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := keys.Default()
			if err != nil {
				return err
			}
			var passphrase string
			if !plain {
				if passphrase, err = askPassphrase(file, true); err != nil {
					return err
				}
			}
			k, err := store.New(args[0], passphrase)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "key %s (%s)\n  secret %s\n  public %s\n", k.Name, k.ID, k.Secret, k.Public)
			return nil
		},
	}
	c.Flags().BoolVar(&plain, "no-passphrase", false, "do not encrypt the secret half")
	c.Flags().StringVar(&file, "passphrase-file", "", "file whose first line is the passphrase")
	c.MarkFlagsMutuallyExclusive("no-passphrase", "passphrase-file")
	return c
}

func keysListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the signing keys",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := keys.Default()
			if err != nil {
				return err
			}
			list, err := store.List()
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(list)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tID\tSECRET HALF")
			for _, k := range list {
				secret := "not here"
				switch {
				case k.Encrypted:
					secret = "encrypted"
				case k.Secret != "":
					secret = "not encrypted"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\n", k.Name, k.ID, secret)
			}
			return w.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the list as JSON")
	return c
}

// askPassphrase takes the passphrase from a file, the environment, or a person, who types a new one twice.
func askPassphrase(file string, fresh bool) (string, error) {
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("cannot read the passphrase: %w", err)
		}
		line, _, _ := strings.Cut(string(text), "\n")
		return usable(strings.TrimSuffix(line, "\r"))
	}
	if word, ok := os.LookupEnv(passphraseVariable); ok {
		return usable(word)
	}
	stdin := int(os.Stdin.Fd())
	if !term.IsTerminal(stdin) {
		return "", fmt.Errorf("cannot ask for the passphrase: standard input is no terminal; set %s, or name a file with --passphrase-file", passphraseVariable)
	}
	word, err := typed(stdin, "Passphrase: ")
	if err != nil || !fresh {
		return word, err
	}
	again, err := typed(stdin, "The same again: ")
	if err == nil && again != word {
		err = errors.New("the two passphrases differ; nothing was made")
	}
	return word, err
}

func typed(terminal int, prompt string) (string, error) {
	fmt.Fprint(os.Stderr, prompt)
	word, err := term.ReadPassword(terminal)
	fmt.Fprintln(os.Stderr)
	if err != nil {
		return "", fmt.Errorf("cannot read the passphrase: %w", err)
	}
	return usable(string(word))
}

func usable(word string) (string, error) {
	if word == "" {
		return "", errors.New("the passphrase is empty; --no-passphrase makes a key without one")
	}
	return word, nil
}
