"""What people and CI servers see of a verification: JUnit, Markdown and a page of HTML.

All three are text to be written as UTF-8, and need nothing beside the result.
"""

from sam_deploy.verification.pages.html import html_page
from sam_deploy.verification.pages.junit import junit_xml
from sam_deploy.verification.pages.markdown import markdown

__all__ = ["html_page", "junit_xml", "markdown"]
