/*
 * booksctl completion: scripts with which shells complete our commands.
 *
 * They are made from the table of commands: what its usage texts name is what
 * is completed, so that a new command or option cannot be forgotten here.  A
 * usage text is a row of tokens between brackets, bars, blanks and equal
 * signs; what begins with a hyphen is an option, what stands behind one in
 * capitals is its value, small letters are words, FILE and PATH are files.
 */
#include "config.h"

#include <string.h>
#include <sysexits.h>

#include "ctl/ctl.h"

#define TOKEN_BYTES_MAX 32 /* of usage texts, which are our own */
#define BREAKS		"[]()|= "

enum kind {
	WORD,
	OPTION,	    /* stands alone */
	OPTION_ANY, /* has a value */
	OPTION_FILE,
	FILES,
	VALUE, /* of a kind that nobody can complete */
};

struct token {
	enum kind kind;
	char text[TOKEN_BYTES_MAX];
};

static bool
is_capital(char letter)
{
	return letter >= 'A' && letter <= 'Z';
}

static bool
names_file(const char *at)
{
	return strncmp(at, "FILE", 4) == 0 || strncmp(at, "PATH", 4) == 0;
}

/* "-N" of "+N | -N" is a number, "-S" an option. */
static bool
is_value(const char *at)
{
	return at[1] == 'N';
}

/* What stands behind an option, past one blank, sign or bracket. */
static enum kind
kind_of_option(const char *behind)
{
	if (*behind == '[')
		behind++;
	if (*behind != '=' && *behind != ' ')
		return OPTION;
	behind++;
	if (!is_capital(*behind))
		return OPTION;
	if (names_file(behind))
		return OPTION_FILE;
	return OPTION_ANY;
}

/* The next token of a usage text, NULL at its end; else where to go on. */
static const char *
token_next(const char *at, struct token *token)
{
	size_t len;

	at += strspn(at, BREAKS);
	len = strcspn(at, BREAKS);
	if (len == 0)
		return NULL;
	SHM_ASSERT(len < sizeof(token->text));
	memcpy(token->text, at, len);
	token->text[len] = '\0';
	if (*at == '-' && at[1] != '\0' && !is_value(at))
		token->kind = kind_of_option(at + len);
	else if (is_capital(*at))
		token->kind = names_file(at) ? FILES : VALUE;
	else
		token->kind = *at >= 'a' && *at <= 'z' ? WORD : VALUE;
	at += len;
	/* The value belongs to its option. */
	if (token->kind == OPTION_ANY || token->kind == OPTION_FILE) {
		at += strspn(at, BREAKS);
		at += strcspn(at, BREAKS);
	}
	return at;
}

static bool
usage_has(const char *usage, enum kind kind)
{
	struct token token;

	while ((usage = token_next(usage, &token)) != NULL)
		if (token.kind == kind)
			return true;
	return false;
}

static bool
is_option(enum kind kind)
{
	return kind == OPTION || kind == OPTION_ANY || kind == OPTION_FILE;
}

/* "-hqV" are three options; --word= says that a value belongs to it. */
static void
print_option(const struct token *token)
{
	if (token->text[1] == '-') {
		printf(" %s%s", token->text, token->kind == OPTION ? "" : "=");
		return;
	}
	for (const char *at = token->text + 1; *at != '\0'; at++)
		printf(" -%c", *at);
}

static void
print_tokens(const char *usage, bool options)
{
	struct token token;

	while ((usage = token_next(usage, &token)) != NULL) {
		if (options && is_option(token.kind))
			print_option(&token);
		else if (!options && token.kind == WORD)
			printf(" %s", token.text);
	}
}

/* -S|-x: the short options whose value is the next word. */
static void
print_valued(const char *usage, const char *between)
{
	struct token token;

	while ((usage = token_next(usage, &token)) != NULL)
		if ((token.kind == OPTION_ANY || token.kind == OPTION_FILE) &&
		    token.text[1] != '-')
			printf("%s%s", between, token.text);
}

/* ---- bash */

static void
bash_case(const char *name, const char *usage)
{
	printf("\t%s)\n\t\twords='", name);
	print_tokens(usage, false);
	printf("' options='");
	print_tokens(usage, true);
	printf("' valued='");
	print_valued(usage, " ");
	printf(" ' files=%s ;;\n", usage_has(usage, FILES) ? "y" : "");
}

static void
print_bash(void)
{
	printf("# booksctl completion bash: put this where bash-completion"
	       " looks, or\n#\tsource <(booksctl completion bash)\n"
	       "_booksctl()\n{\n"
	       "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev= i command=\n"
	       "\tlocal words= options= valued= files=\n"
	       "\tCOMPREPLY=()\n"
	       "\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
	       "\t\tcase ${COMP_WORDS[i]} in\n"
	       "\t\t''");
	print_valued(CTL_GLOBAL_USAGE, "|");
	printf(") ((i++)) ;;\n"
	       "\t\t-*) ;;\n"
	       "\t\t*) command=${COMP_WORDS[i]}; break ;;\n"
	       "\t\tesac\n"
	       "\tdone\n"
	       "\t((COMP_CWORD > 1)) && prev=${COMP_WORDS[COMP_CWORD - 1]}\n"
	       "\tcase $command in\n");
	printf("\t'')\n\t\twords='");
	for (size_t i = 0; i < ctl_commands_count; i++)
		printf(" %s", ctl_commands[i].name);
	printf("' options='");
	print_tokens(CTL_GLOBAL_USAGE, true);
	printf("' valued='");
	print_valued(CTL_GLOBAL_USAGE, " ");
	printf(" ' ;;\n");
	for (size_t i = 0; i < ctl_commands_count; i++)
		bash_case(ctl_commands[i].name, ctl_commands[i].usage);
	printf("\tesac\n"
	       "\tif [[ $valued == *\" $prev \"* ]]; then\n"
	       "\t\t[[ $prev == -S ]] &&"
	       " COMPREPLY=($(compgen -f -- \"$cur\"))\n"
	       "\t\treturn 0\n"
	       "\tfi\n"
	       "\tif [[ $cur == -* ]]; then\n"
	       "\t\tCOMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n"
	       "\t\t[[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] &&\n"
	       "\t\t    compopt -o nospace 2>/dev/null\n"
	       "\t\treturn 0\n"
	       "\tfi\n"
	       "\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
	       "\t[[ -n $files ]] &&"
	       " COMPREPLY+=($(compgen -f -- \"$cur\"))\n"
	       "\treturn 0\n"
	       "}\n"
	       "complete -o filenames -F _booksctl booksctl\n");
}

/* ---- zsh */

/* text inside single quotes of a shell */
static void
print_quoted(const char *text)
{
	for (; *text != '\0'; text++)
		if (*text == '\'')
			fputs("'\\''", stdout);
		else
			putchar(*text);
}

static void
print_zsh(void)
{
	printf("#compdef booksctl\n"
	       "# booksctl completion zsh: a file _booksctl in a folder of"
	       " $fpath\n"
	       "_booksctl()\n{\n"
	       "\tlocal -a commands\n"
	       "\tlocal command= i\n"
	       "\tcommands=(\n");
	for (size_t i = 0; i < ctl_commands_count; i++) {
		printf("\t\t'%s:", ctl_commands[i].name);
		print_quoted(ctl_commands[i].help);
		printf("'\n");
	}
	printf("\t)\n"
	       "\tfor ((i = 2; i < CURRENT; i++)); do\n"
	       "\t\tcase $words[i] in\n"
	       "\t\t''");
	print_valued(CTL_GLOBAL_USAGE, "|");
	printf(") ((i++)) ;;\n"
	       "\t\t-*) ;;\n"
	       "\t\t*) command=$words[i]; break ;;\n"
	       "\t\tesac\n"
	       "\tdone\n"
	       "\tif [[ $words[CURRENT-1] == -S ]]; then\n"
	       "\t\t_files\n\t\treturn\n\tfi\n"
	       "\tcase $command in\n"
	       "\t'')\n"
	       "\t\tif [[ $PREFIX == -* ]]; then\n\t\t\tcompadd --");
	print_tokens(CTL_GLOBAL_USAGE, true);
	printf("\n\t\telse\n\t\t\t_describe command commands\n\t\tfi ;;\n");
	for (size_t i = 0; i < ctl_commands_count; i++) {
		const char *usage = ctl_commands[i].usage;

		printf("\t%s)\n\t\tif [[ $PREFIX == -* ]]; then\n"
		       "\t\t\tcompadd -S '' --",
		    ctl_commands[i].name);
		print_tokens(usage, true);
		printf("\n\t\telse\n\t\t\tcompadd --");
		print_tokens(usage, false);
		printf("%s\n\t\tfi ;;\n",
		    usage_has(usage, FILES) ? "; _files" : "");
	}
	printf("\tesac\n}\n"
	       "if [[ $funcstack[1] == _booksctl ]]; then\n"
	       "\t_booksctl \"$@\"\n"
	       "else\n"
	       "\tcompdef _booksctl booksctl\n"
	       "fi\n");
}

/* ---- fish */

static void
fish_options(const char *condition, const char *usage)
{
	struct token token;

	while ((usage = token_next(usage, &token)) != NULL) {
		if (!is_option(token.kind))
			continue;
		if (token.text[1] == '-') {
			printf("complete -c booksctl -n '%s' -l %s%s\n",
			    condition, token.text + 2,
			    token.kind == OPTION ? "" : " -x");
			continue;
		}
		for (const char *at = token.text + 1; *at != '\0'; at++)
			printf("complete -c booksctl -n '%s' -s %c%s\n",
			    condition, *at,
			    token.kind == OPTION	? ""
			    : token.kind == OPTION_FILE ? " -rF"
							: " -x");
	}
}

static void
print_fish(void)
{
	char seen[64];

	printf("# booksctl completion fish: a file booksctl.fish in\n"
	       "# ~/.config/fish/completions\n"
	       "complete -c booksctl -f\n");
	fish_options("__fish_use_subcommand", CTL_GLOBAL_USAGE);
	for (size_t i = 0; i < ctl_commands_count; i++) {
		const struct ctl_command *command = &ctl_commands[i];

		printf("complete -c booksctl -n __fish_use_subcommand -a %s"
		       " -d '",
		    command->name);
		print_quoted(command->help);
		printf("'\n");
		snprintf(seen, sizeof(seen), "__fish_seen_subcommand_from %s",
		    command->name);
		fish_options(seen, command->usage);
		if (usage_has(command->usage, WORD)) {
			printf("complete -c booksctl -n '%s' -a '", seen);
			print_tokens(command->usage, false);
			printf("'\n");
		}
		if (usage_has(command->usage, FILES))
			printf("complete -c booksctl -n '%s' -F\n", seen);
	}
}

/* ---- the command */

int
ctl_completion(const struct ctl *ctl, int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*print)(void);
	} shells[] = {
	    {"bash", print_bash},
	    {"zsh", print_zsh},
	    {"fish", print_fish},
	};

	(void)ctl;
	if (argc != 2)
		return ctl_usage("completion: need bash, zsh or fish");
	for (size_t i = 0; i < SHM_ARRAY_LEN(shells); i++)
		if (strcmp(argv[1], shells[i].name) == 0) {
			shells[i].print();
			return EX_OK;
		}
	return ctl_usage("completion: need bash, zsh or fish");
}
